using LlamaKivi.Sampling;

namespace LlamaKivi.Native;

// The samplers that a chain can be made of.
public sealed partial class SafeLLamaSamplerChainHandle
{
    /// <summary>Chooses the greatest logit.</summary>
    public void AddGreedySampler() => Add("greedy", static (TokenDataCandidates _, ref LLamaTokenDataArrayNative data) =>
    {
        int best = 0;
        for (int i = 1; i < data.Data.Length; i++)
        {
            best = data.Data[i].Logit > data.Data[best].Logit ? i : best;
        }

        data.Selected = best;
    });

    /// <summary>Chooses with the probabilities of the softmax.</summary>
    public void AddDistributionSampler(uint seed) => Add(new DistributionSampler(seed));

    /// <summary>Computes the probabilities and sorts by them.</summary>
    public void AddSoftmax() => Add("softmax", static (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
    {
        candidates.Sort(ref data);
        candidates.Softmax(ref data);
    });

    /// <summary>Keeps the k greatest logits; 0: all.</summary>
    public void AddTopK(int k) => Add("top-k", (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) =>
    {
        candidates.Sort(ref data);
        data.Size = k > 0 ? Math.Min((ulong)k, data.Size) : data.Size;
    });

    /// <summary>Keeps the fewest most probable tokens that together have the probability p (Holtzman et al. 2020).</summary>
    public void AddTopP(float p, nint minKeep)
    {
        LogitCheck.Finite(p, nameof(p));
        AddNarrowing("top-p", true, set => set.TopP(p, (int)minKeep));
    }

    /// <summary>Keeps the tokens at least p times as probable as the most probable one.</summary>
    public void AddMinP(float p, nint minKeep)
    {
        LogitCheck.Finite(p, nameof(p));
        AddNarrowing("min-p", true, set => set.MinP(p, (int)minKeep));
    }

    /// <summary>Keeps the tokens whose surprise is nearest the entropy, up to the probability p (Meister et al. 2022).</summary>
    public void AddTypical(float p, nint minKeep)
    {
        LogitCheck.Finite(p, nameof(p));
        AddNarrowing("typical", true, set => set.Typical(p, (int)minKeep));
    }

    /// <summary>Keeps the tokens whose logit is at most n standard deviations below the greatest.</summary>
    public void AddTopNSigma(float n)
    {
        LogitCheck.Finite(n, nameof(n));
        AddNarrowing("top-n-sigma", false, set => set.TopNSigma(n));
    }

    /// <summary>With a probability of p, rules out the tokens at least as probable as t but for the least probable of them.</summary>
    public void AddXTC(float p, float t, int minKeep, uint seed)
    {
        LogitCheck.Finite(p, nameof(p));
        LogitCheck.Finite(t, nameof(t));
        Add(new XtcSampler(p, t, minKeep, seed));
    }

    /// <summary>Divides the logits by a temperature; 0 or less leaves the greatest alone.</summary>
    public void AddTemperature(float t)
    {
        LogitCheck.Finite(t, nameof(t));
        Add("temperature", (TokenDataCandidates candidates, ref LLamaTokenDataArrayNative data) => Heat(candidates, ref data, t));
    }

    /// <summary>Divides the logits by a temperature that grows with the entropy from t - delta to t + delta.</summary>
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

    /// <summary>Lowers the logits of the last tokens accepted.</summary>
    /// <param name="penaltyCount">How many of them.</param>
    /// <param name="repeat">Divides positive logits, multiplies others; 1: off.</param>
    /// <param name="freq">Subtracted for each occurrence.</param>
    /// <param name="presence">Subtracted once.</param>
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

    /// <summary>Adds to logits.</summary>
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

    /// <summary>Rules out what a grammar does not allow next.</summary>
    /// <param name="model">Whose tokens.</param>
    /// <param name="grammar">The grammar, in GBNF.</param>
    /// <param name="root">The rule a text follows.</param>
    /// <exception cref="FormatException">The grammar is not valid.</exception>
    public void AddGrammar(SafeLlamaModelHandle model, string grammar, string root)
    {
        ArgumentNullException.ThrowIfNull(model);
        AddGrammar(model.Vocab, grammar, root);
    }

    /// <summary>Rules out what a grammar does not allow next.</summary>
    /// <param name="vocab">Whose tokens.</param>
    /// <param name="grammar">The grammar, in GBNF.</param>
    /// <param name="root">The rule a text follows.</param>
    /// <exception cref="FormatException">The grammar is not valid.</exception>
    public void AddGrammar(SafeLlamaModelHandle.Vocabulary vocab, string grammar, string root)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        Add(new GrammarSampler(new Grammar(grammar, root), vocab.Tokenizer));
    }

    /// <summary>Rules out what a grammar does not allow next, from where the text accepted calls for it. Before that it allows everything.</summary>
    /// <param name="model">Whose tokens.</param>
    /// <param name="grammar">The grammar, in GBNF.</param>
    /// <param name="root">The rule that the text from there on follows.</param>
    /// <param name="patterns">
    /// Regular expressions of .NET, which are matched from the start of the text, with the names of control tokens in it. The grammar takes the text from the first group
    /// of one that is not empty, or all of it if there is none.
    /// </param>
    /// <param name="triggerTokens">Tokens whose text the grammar begins with.</param>
    /// <exception cref="FormatException">The grammar is not valid.</exception>
    /// <exception cref="ArgumentException">A pattern is not valid.</exception>
    public void AddLazyGrammar(SafeLlamaModelHandle model, string grammar, string root, ReadOnlySpan<string> patterns, ReadOnlySpan<LLamaToken> triggerTokens)
    {
        ArgumentNullException.ThrowIfNull(model);
        Add(new GrammarSampler(new Grammar(grammar, root), model.Vocab.Tokenizer, new GrammarSampler.Triggers(patterns, triggerTokens)));
    }

    /// <summary>Lowers the logits of tokens that would repeat a sequence of the tokens accepted ("don't repeat yourself", P. E. Weidmann, 2024).</summary>
    /// <param name="model">Whose tokens.</param>
    /// <param name="sequenceBreakers">Texts; a sequence does not reach over a token that has one in it.</param>
    /// <param name="multiplier">Strength: multiplier * base ^ (length of the sequence - allowedLength) is subtracted.</param>
    /// <param name="base">How fast that grows with the length.</param>
    /// <param name="allowedLength">Sequences shorter than this go unpunished.</param>
    /// <param name="penaltyLastN">How many of the tokens are looked at; 0: none, which switches it off; -1: all.</param>
    public void AddDry(
        SafeLlamaModelHandle model, ReadOnlySpan<string> sequenceBreakers, float multiplier = 0.8f, float @base = 1.75f, int allowedLength = 2, int penaltyLastN = 0)
    {
        ArgumentNullException.ThrowIfNull(model);
        LogitCheck.Finite(multiplier, nameof(multiplier));
        LogitCheck.Finite(@base, nameof(@base));
        Add(new RepetitionSampler(new DryPenalties(
            multiplier, @base, allowedLength, penaltyLastN < 0 ? int.MaxValue : penaltyLastN, model.Vocab.Tokenizer.TokensWith(sequenceBreakers))));
    }

    /// <summary>Mirostat 1 (Basu et al. 2021): steers the surprise of the text to tau bits for each token, and chooses.</summary>
    /// <param name="vocabCount">Tokens of the vocabulary.</param>
    /// <param name="seed">Where the random numbers start.</param>
    /// <param name="tau">The surprise.</param>
    /// <param name="eta">How fast it steers.</param>
    /// <param name="m">Without effect: the exponent comes from the first 100 tokens.</param>
    public void AddMirostat1Sampler(int vocabCount, uint seed, float tau, float eta, int m) =>
        Add(new MirostatSampler(
            "mirostat", seed, LogitCheck.Finite(tau, nameof(tau)), LogitCheck.Finite(eta, nameof(eta)), (set, mu) => set.MirostatTopK(mu, vocabCount, 1)));

    /// <summary>Mirostat 2 (Basu et al. 2021): steers the surprise of the text to tau bits for each token, and chooses.</summary>
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

        // Below the greatest, where the quotient of that has no float.
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
