using LlamaKivi.Sampling;

namespace LlamaKivi.Native;

// The built-in samplers of a chain.
public sealed partial class SafeLLamaSamplerChainHandle
{
    /// <summary>Selects the token with the largest logit.</summary>
    public void AddGreedySampler() => Add("greedy", static (TokenDataCandidates _, ref LLamaTokenDataArrayNative data) =>
    {
        int best = 0;
        for (int i = 1; i < data.Data.Length; i++)
        {
            best = data.Data[i].Logit > data.Data[best].Logit ? i : best;
        }

        data.Selected = best;
    });

    /// <summary>Samples from the softmax distribution.</summary>
    public void AddDistributionSampler(uint seed) => Add(new DistributionSampler(seed));

    /// <summary>Computes probabilities and sorts by them, in descending order.</summary>
    public void AddSoftmax() => Add("softmax", static (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
    {
        candidates.Sort(ref data);
        candidates.Softmax(ref data);
    });

    /// <summary>Top-k: keeps the k largest logits; 0: all.</summary>
    public void AddTopK(int k) => Add("top-k", (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
    {
        candidates.Sort(ref data);
        data.Size = k > 0 ? Math.Min((ulong)k, data.Size) : data.Size;
    });

    /// <summary>Top-p: keeps the smallest set of most probable tokens with total probability at least p (Holtzman et al. 2020).</summary>
    public void AddTopP(float p, nint minKeep)
    {
        LogitCheck.Finite(p, nameof(p));
        AddNarrowing("top-p", true, set => set.TopP(p, (int)minKeep));
    }

    /// <summary>Min-p: keeps tokens with at least p times the largest probability.</summary>
    public void AddMinP(float p, nint minKeep)
    {
        LogitCheck.Finite(p, nameof(p));
        AddNarrowing("min-p", true, set => set.MinP(p, (int)minKeep));
    }

    /// <summary>Locally typical sampling: keeps tokens whose surprise is closest to the entropy, up to total probability p (Meister et al. 2022).</summary>
    public void AddTypical(float p, nint minKeep)
    {
        LogitCheck.Finite(p, nameof(p));
        AddNarrowing("typical", true, set => set.Typical(p, (int)minKeep));
    }

    /// <summary>Top-n-sigma: keeps tokens whose logit is at most n standard deviations below the largest.</summary>
    public void AddTopNSigma(float n)
    {
        LogitCheck.Finite(n, nameof(n));
        AddNarrowing("top-n-sigma", false, set => set.TopNSigma(n));
    }

    /// <summary>XTC: with probability p, excludes all tokens of probability at least t except the least probable of them.</summary>
    public void AddXTC(float p, float t, int minKeep, uint seed)
    {
        LogitCheck.Finite(p, nameof(p));
        LogitCheck.Finite(t, nameof(t));
        Add(new XtcSampler(p, t, minKeep, seed));
    }

    /// <summary>Divides the logits by a temperature; 0 or less: keeps only the largest logit.</summary>
    public void AddTemperature(float t)
    {
        LogitCheck.Finite(t, nameof(t));
        Add("temperature", (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) => Heat(candidates, ref data, t));
    }

    /// <summary>Divides the logits by a temperature that increases with the entropy, from t - delta to t + delta.</summary>
    public void AddDynamicTemperature(float t, float delta, float exponent)
    {
        LogitCheck.Finite(t, nameof(t));
        LogitCheck.Finite(delta, nameof(delta));
        LogitCheck.Finite(exponent, nameof(exponent));
        Add("dynamic temperature", (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
        {
            candidates.Sort(ref data);
            candidates.Softmax(ref data);
            double entropy = 0;
            foreach (LLamaTokenData candidate in data.Data)
            {
                entropy -= candidate.Probability > 0 ? candidate.Probability * Math.Log(candidate.Probability) : 0;
            }

            double part = data.Size > 1 ? entropy / Math.Log(data.Size) : 0;
            double low = Math.Max(0, t - delta);
            Heat(candidates, ref data, (float)(low + (t + delta - low) * Math.Pow(part, exponent)));
        });
    }

    /// <summary>Penalizes recently accepted tokens.</summary>
    /// <param name="penaltyCount">Number of recent tokens.</param>
    /// <param name="repeat">Repetition penalty: divides positive logits and multiplies negative ones; 1: off.</param>
    /// <param name="freq">Frequency penalty: subtracted once per occurrence.</param>
    /// <param name="presence">Presence penalty: subtracted once.</param>
    public void AddPenalties(int penaltyCount, float repeat, float freq, float presence)
    {
        if (!(repeat > 0))
        {
            throw new ArgumentOutOfRangeException(nameof(repeat), $"{nameof(repeat)} is {repeat}; it must be above 0.");
        }

        LogitCheck.Finite(repeat, nameof(repeat));
        LogitCheck.Finite(freq, nameof(freq));
        LogitCheck.Finite(presence, nameof(presence));
        Add(new PenaltySampler(penaltyCount, new TokenPenalties(repeat, freq, presence)));
    }

    /// <summary>Adds biases to logits.</summary>
    public void AddLogitBias(int vocabSize, Span<LLamaLogitBias> biases)
    {
        var added = new Dictionary<int, float>();
        foreach (LLamaLogitBias bias in biases)
        {
            int token = (int)bias.Token;
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)token, (uint)vocabSize, nameof(biases));
            added[token] = added.GetValueOrDefault(token) + bias.Bias;
            if (!(added[token] <= float.MaxValue))
            {
                throw new ArgumentOutOfRangeException(nameof(biases), $"The bias of token {token} is {added[token]}; it must be a number or -infinity.");
            }
        }

        Add("logit bias", (TokenDataCandidates _, ref LLamaTokenDataArrayNative data) =>
        {
            foreach (ref LLamaTokenData candidate in data.Data)
            {
                candidate.Logit += added.GetValueOrDefault((int)candidate.ID);
            }

            data.Sorted = false;
        });
    }

    /// <summary>Excludes tokens that a grammar does not allow.</summary>
    /// <param name="model">The model, for its vocabulary.</param>
    /// <param name="grammar">The grammar, in GBNF.</param>
    /// <param name="root">Name of the root rule.</param>
    /// <exception cref="FormatException">The grammar is not valid.</exception>
    public void AddGrammar(SafeLlamaModelHandle model, string grammar, string root)
    {
        ArgumentNullException.ThrowIfNull(model);
        AddGrammar(model.Vocab, grammar, root);
    }

    /// <summary>Excludes tokens that a grammar does not allow.</summary>
    /// <param name="vocab">The vocabulary.</param>
    /// <param name="grammar">The grammar, in GBNF.</param>
    /// <param name="root">Name of the root rule.</param>
    /// <exception cref="FormatException">The grammar is not valid.</exception>
    public void AddGrammar(SafeLlamaModelHandle.Vocabulary vocab, string grammar, string root)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        Add(new GrammarSampler(new Grammar(grammar, root), vocab.Tokenizer));
    }

    /// <summary>Excludes tokens that a grammar does not allow, after a trigger in the accepted text. Before the trigger all tokens are allowed.</summary>
    /// <param name="model">The model, for its vocabulary.</param>
    /// <param name="grammar">The grammar, in GBNF.</param>
    /// <param name="root">Name of the root rule.</param>
    /// <param name="patterns">
    /// .NET regular expressions that trigger the grammar, matched from the start of the text, in which control tokens appear as their names. The grammar parses the text from the
    /// first non-empty capture group on, or from the start of the match if there is none.
    /// </param>
    /// <param name="triggerTokens">Tokens that trigger the grammar; it parses the text from the token on.</param>
    /// <exception cref="FormatException">The grammar is not valid.</exception>
    /// <exception cref="ArgumentException">A pattern is not valid.</exception>
    public void AddLazyGrammar(SafeLlamaModelHandle model, string grammar, string root, ReadOnlySpan<string> patterns, ReadOnlySpan<LLamaToken> triggerTokens)
    {
        ArgumentNullException.ThrowIfNull(model);
        Add(new GrammarSampler(new Grammar(grammar, root), model.Vocab.Tokenizer, new GrammarSampler.Triggers(patterns, triggerTokens)));
    }

    /// <summary>DRY ("don't repeat yourself", P. E. Weidmann, 2024): penalizes tokens that would extend a repeated sequence of accepted tokens.</summary>
    /// <param name="model">The model, for its vocabulary.</param>
    /// <param name="sequenceBreakers">Strings that end a sequence: it does not extend across a token that contains one.</param>
    /// <param name="multiplier">Strength: multiplier * base ^ (sequence length - allowedLength) is subtracted from the logit.</param>
    /// <param name="base">Growth of the penalty per token of the sequence.</param>
    /// <param name="allowedLength">Minimum length of penalized sequences.</param>
    /// <param name="penaltyLastN">Number of recent tokens to search; 0: off; -1: all.</param>
    public void AddDry(
        SafeLlamaModelHandle model, ReadOnlySpan<string> sequenceBreakers, float multiplier = 0.8f, float @base = 1.75f, int allowedLength = 2, int penaltyLastN = 0)
    {
        ArgumentNullException.ThrowIfNull(model);
        LogitCheck.Finite(multiplier, nameof(multiplier));
        LogitCheck.Finite(@base, nameof(@base));
        Add(new RepetitionSampler(new DryPenalties(
            multiplier, @base, allowedLength, penaltyLastN < 0 ? int.MaxValue : penaltyLastN, model.Vocab.Tokenizer.TokensWith(sequenceBreakers))));
    }

    /// <summary>Mirostat 1 (Basu et al. 2021): controls the surprise of the text towards tau bits per token, and samples a token.</summary>
    /// <param name="vocabCount">Vocabulary size.</param>
    /// <param name="seed">Seed of the random numbers.</param>
    /// <param name="tau">Target surprise in bits.</param>
    /// <param name="eta">Learning rate.</param>
    /// <param name="m">Accepted and ignored: the exponent is estimated from the 100 most probable tokens.</param>
    public void AddMirostat1Sampler(int vocabCount, uint seed, float tau, float eta, [AcceptedAndIgnored] int m) =>
        Add(new MirostatSampler(
            "mirostat", seed, LogitCheck.Finite(tau, nameof(tau)), LogitCheck.Finite(eta, nameof(eta)), (set, mu) => set.MirostatTopK(mu, vocabCount, 1)));

    /// <summary>Mirostat 2 (Basu et al. 2021): controls the surprise of the text towards tau bits per token, and samples a token.</summary>
    public void AddMirostat2Sampler(uint seed, float tau, float eta) =>
        Add(new MirostatSampler(
            "mirostat 2", seed, LogitCheck.Finite(tau, nameof(tau)), LogitCheck.Finite(eta, nameof(eta)), static (set, mu) => set.KeepLessSurprising(mu, 1)));

    private void Add(string name, CandidateOperation change) => Add(new StageSampler(name, change));

    private void AddNarrowing(string name, bool sort, Action<CandidateSet> narrow) => Add(name, (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
    {
        if (sort)
        {
            candidates.Sort(ref data);
        }

        candidates.Narrow(ref data, narrow);
    });

    private static void Heat(TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data, float temperature)
    {
        if (temperature <= 0)
        {
            candidates.Sort(ref data);
            data.Size = 1;
            return;
        }

        // The difference to the largest logit, if dividing the largest itself would overflow.
        float max = float.NegativeInfinity;
        foreach (ref readonly LLamaTokenData candidate in data.Data)
        {
            max = Math.Max(max, candidate.Logit);
        }

        float less = float.IsFinite(max / temperature) ? 0 : max;
        foreach (ref LLamaTokenData candidate in data.Data)
        {
            candidate.Logit = (candidate.Logit - less) / temperature;
        }
    }
}
