using System.Buffers;
using System.Globalization;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;

namespace LlamaKivi.Native;

/// <summary>A sampler of one's own, for <see cref="SafeLLamaSamplerChainHandle.AddCustom"/>.</summary>
public interface ICustomSampler : IDisposable
{
    /// <summary>The name, for people.</summary>
    string Name { get; }

    /// <summary>Changes the candidates: their logits, their number, or the chosen one. One that leaves them unsorted must say so.</summary>
    void Apply(ref LLamaTokenDataArrayNative tokenData);

    /// <summary>Takes a token that was chosen.</summary>
    void Accept(LLamaToken token);

    /// <summary>Forgets what it has taken.</summary>
    void Reset();

    /// <summary>Makes a copy.</summary>
    ICustomSampler Clone();
}

/// <summary>How a chain of samplers works.</summary>
public struct LLamaSamplerChainParams
{
    /// <summary>A hint.</summary>
    public bool NoPerf { get; set; }

    /// <summary>The defaults.</summary>
    public static LLamaSamplerChainParams Default() => default;
}

/// <summary>A logit to raise or lower.</summary>
public struct LLamaLogitBias
{
    /// <summary>The token.</summary>
    public LLamaToken Token;

    /// <summary>What is added to its logit.</summary>
    public float Bias;
}

/// <summary>Samplers that are applied one after the other to the candidates for the next token; the last one chooses.</summary>
/// <remarks>Samplers keep state from token to token: use a chain for one text at a time. A thread that uses it while another does gets an <see cref="InvalidOperationException"/>.</remarks>
public sealed class SafeLLamaSamplerChainHandle : IDisposable
{
    private readonly List<ICustomSampler> _samplers = [];
    private readonly PipelineGuard _guard = new();
    private LLamaTokenData[] _buffer = [];

    private SafeLLamaSamplerChainHandle()
    {
    }

    /// <summary>Samplers in the chain.</summary>
    public int Count => _samplers.Count;

    /// <summary>Creates an empty chain.</summary>
    public static SafeLLamaSamplerChainHandle Create(LLamaSamplerChainParams @params) => new();

    /// <summary>The name of a sampler.</summary>
    public string GetName(int index) => _samplers[index].Name;

    /// <summary>The seed of a sampler that chooses with random numbers; of others <see cref="uint.MaxValue"/>.</summary>
    public uint GetSeed(int index) => _samplers[index] is ISeeded sampler ? sampler.Seed : uint.MaxValue;

    /// <summary>Applies the samplers to candidates.</summary>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity, or became so by a sampler, which the message names.</exception>
    /// <exception cref="InvalidOperationException">No candidate is left, or every logit is -infinity.</exception>
    public void Apply(ref LLamaTokenDataArrayNative candidates)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        LogitCheck.Check(candidates.Data, null);
        foreach (ICustomSampler sampler in _samplers)
        {
            sampler.Apply(ref candidates);
            LogitCheck.Check(candidates.Data, sampler.Name);
        }
    }

    /// <summary>Chooses a token from the logits of batch token <paramref name="index"/> of the last decode, and accepts it.</summary>
    /// <exception cref="InvalidOperationException">No sampler of the chain chooses.</exception>
    public LLamaToken Sample(SafeLLamaContextHandle context, int index)
    {
        ArgumentNullException.ThrowIfNull(context);
        return Sample(context.GetLogitsIth(index));
    }

    /// <summary>Chooses a token from a row of logits, one per vocabulary token, and accepts it. The logits stay as they are.</summary>
    /// <exception cref="InvalidOperationException">No sampler of the chain chooses.</exception>
    public LLamaToken Sample(ReadOnlySpan<float> logits)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        BaseSamplingPipeline.CheckedMax(logits);
        _buffer = _buffer.Length < logits.Length ? new LLamaTokenData[logits.Length] : _buffer;
        using MemoryHandle pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(logits, _buffer), out LLamaTokenDataArrayNative candidates);
        Apply(ref candidates);
        if (candidates.Selected < 0 || candidates.Selected >= (long)candidates.Size)
        {
            throw new InvalidOperationException(
                $"No token was chosen by the chain [{string.Join(", ", _samplers.Select(sampler => sampler.Name))}]. End it with AddGreedySampler or AddDistributionSampler.");
        }

        LLamaToken token = candidates.Data[(int)candidates.Selected].ID;
        Accept(token);
        return token;
    }

    /// <summary>Tells the samplers of a token that was chosen.</summary>
    public void Accept(LLamaToken token)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.ForEach(sampler => sampler.Accept(token));
    }

    /// <summary>Lets the samplers forget the tokens they were told of.</summary>
    public void Reset()
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.ForEach(sampler => sampler.Reset());
    }

    /// <summary>Adds a copy of another chain's sampler.</summary>
    public void AddClone(SafeLLamaSamplerChainHandle src, int index)
    {
        ArgumentNullException.ThrowIfNull(src);
        using PipelineGuard.Entry entry = src._guard.Enter(src);
        Add(src._samplers[index].Clone());
    }

    /// <summary>Removes a sampler and frees it.</summary>
    public void Remove(int index)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers[index].Dispose();
        _samplers.RemoveAt(index);
    }

    /// <summary>Adds a sampler of one's own, which the chain disposes of.</summary>
    public void AddCustom<TSampler>(TSampler sampler)
        where TSampler : class, ICustomSampler
    {
        ArgumentNullException.ThrowIfNull(sampler);
        Add(sampler);
    }

    /// <summary>Chooses the greatest logit.</summary>
    public void AddGreedySampler() => Add("greedy", static (ref LLamaTokenDataArrayNative data) =>
    {
        int best = 0;
        for (int i = 1; i < data.Data.Length; i++)
        {
            best = data.Data[i].Logit > data.Data[best].Logit ? i : best;
        }

        data.Selected = best;
    });

    /// <summary>Chooses with the probabilities of the softmax.</summary>
    public void AddDistributionSampler(uint seed) => Add(new Drawing(seed));

    /// <summary>Computes the probabilities and sorts by them.</summary>
    public void AddSoftmax() => Add("softmax", static (ref LLamaTokenDataArrayNative data) =>
    {
        data.Sort();
        data.Softmax();
    });

    /// <summary>Keeps the k greatest logits; 0: all.</summary>
    public void AddTopK(int k) => Add("top-k", (ref LLamaTokenDataArrayNative data) =>
    {
        data.Sort();
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
        var random = new Xoshiro256(seed);
        AddNarrowing("xtc", true, set =>
        {
            if (t <= 0.5f && random.NextDouble() < p)
            {
                set.ExcludeTopChoices(t, minKeep);
            }
        });
    }

    /// <summary>Divides the logits by a temperature; 0 or less leaves the greatest alone.</summary>
    public void AddTemperature(float t)
    {
        LogitCheck.Finite(t, nameof(t));
        Add("temperature", (ref LLamaTokenDataArrayNative data) => Heat(ref data, t));
    }

    /// <summary>Divides the logits by a temperature that grows with the entropy from t - delta to t + delta.</summary>
    public void AddDynamicTemperature(float t, float delta, float exponent)
    {
        LogitCheck.Finite(t, nameof(t));
        LogitCheck.Finite(delta, nameof(delta));
        LogitCheck.Finite(exponent, nameof(exponent));
        Add("dynamic temperature", (ref LLamaTokenDataArrayNative data) =>
        {
            data.Sort();
            data.Softmax();
            double entropy = 0;
            foreach (LLamaTokenData candidate in data.Data)
            {
                entropy -= candidate.Probability > 0 ? candidate.Probability * Math.Log(candidate.Probability) : 0;
            }

            double part = data.Size > 1 ? entropy / Math.Log(data.Size) : 0;
            double low = Math.Max(0, t - delta);
            Heat(ref data, (float)(low + (t + delta - low) * Math.Pow(part, exponent)));
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
        Add(new Penalties(penaltyCount, repeat, freq, presence));
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

        Add("logit bias", (ref LLamaTokenDataArrayNative data) =>
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
        Add(new GrammarSampler(new Grammar(grammar, root), vocab));
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
        Add(new GrammarSampler(new Grammar(grammar, root), model.Vocab, new GrammarSampler.Triggers(patterns, triggerTokens)));
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
        Add(new RepetitionSampler(
            multiplier, @base, allowedLength, penaltyLastN < 0 ? int.MaxValue : penaltyLastN, model.Vocab.Tokenizer.TokensWith(sequenceBreakers)));
    }

    /// <summary>Mirostat 1 (Basu et al. 2021): steers the surprise of the text to tau bits for each token, and chooses.</summary>
    /// <param name="vocabCount">Tokens of the vocabulary.</param>
    /// <param name="seed">Where the random numbers start.</param>
    /// <param name="tau">The surprise.</param>
    /// <param name="eta">How fast it steers.</param>
    /// <param name="m">Without effect: the exponent comes from the first 100 tokens.</param>
    public void AddMirostat1Sampler(int vocabCount, uint seed, float tau, float eta, int m) =>
        Add(new Mirostat(
            "mirostat", seed, LogitCheck.Finite(tau, nameof(tau)), LogitCheck.Finite(eta, nameof(eta)), (set, mu) => set.MirostatTopK(mu, vocabCount, 1)));

    /// <summary>Mirostat 2 (Basu et al. 2021): steers the surprise of the text to tau bits for each token, and chooses.</summary>
    public void AddMirostat2Sampler(uint seed, float tau, float eta) =>
        Add(new Mirostat(
            "mirostat 2", seed, LogitCheck.Finite(tau, nameof(tau)), LogitCheck.Finite(eta, nameof(eta)), static (set, mu) => set.KeepLessSurprising(mu, 1)));

    /// <summary>Disposes of the samplers.</summary>
    public void Dispose()
    {
        _samplers.ForEach(sampler => sampler.Dispose());
        _samplers.Clear();
    }

    private void Add(string name, Stage.Change change) => Add(new Stage(name, change));

    private void Add(ICustomSampler sampler)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.Add(sampler);
    }

    private void AddNarrowing(string name, bool sort, Action<CandidateSet> narrow)
    {
        var set = new CandidateSet();
        Add(name, (ref LLamaTokenDataArrayNative data) => Narrow(ref data, sort, set, narrow));
    }

    private static void Narrow(ref LLamaTokenDataArrayNative data, bool sort, CandidateSet set, Action<CandidateSet> narrow)
    {
        if (sort)
        {
            data.Sort();
        }

        Span<LLamaTokenData> candidates = data.Data;
        var logits = new float[candidates.Length];
        for (int i = 0; i < logits.Length; i++)
        {
            logits[i] = candidates[i].Logit;
        }

        set.Select(logits, 0, sort: false);
        narrow(set);
        LLamaTokenData[] old = candidates.ToArray();
        for (int i = 0; i < set.Ids.Length; i++)
        {
            candidates[i] = old[set.Ids[i]];
        }

        data.Size = (ulong)set.Ids.Length;
    }

    // Chooses with the probabilities of the softmax. The candidates must be sorted.
    private static void Draw(ref LLamaTokenDataArrayNative data, double uniform)
    {
        data.Softmax();
        int chosen = 0;
        for (int i = 0; i < data.Data.Length && uniform >= 0; i++)
        {
            chosen = data.Data[i].Probability > 0 ? i : chosen;
            uniform -= data.Data[i].Probability;
        }

        data.Selected = chosen;
    }

    private static void Heat(ref LLamaTokenDataArrayNative data, float temperature)
    {
        if (temperature <= 0)
        {
            data.Sort();
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

    private interface ISeeded
    {
        uint Seed { get; }
    }

    // A sampler that remembers nothing.
    private sealed class Stage(string name, Stage.Change change) : ICustomSampler
    {
        public delegate void Change(ref LLamaTokenDataArrayNative data);

        public string Name => name;

        public void Apply(ref LLamaTokenDataArrayNative tokenData) => change(ref tokenData);

        public void Accept(LLamaToken token)
        {
        }

        public void Reset()
        {
        }

        public ICustomSampler Clone() => new Stage(name, change);

        public void Dispose()
        {
        }
    }

    private sealed class Drawing(uint seed) : ICustomSampler, ISeeded
    {
        private Xoshiro256 _random = new(seed);

        public uint Seed => seed;

        public string Name => "distribution " + seed.ToString(CultureInfo.InvariantCulture);

        public void Apply(ref LLamaTokenDataArrayNative tokenData)
        {
            tokenData.Sort();
            Draw(ref tokenData, _random.NextDouble());
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Reset() => _random = new Xoshiro256(seed);

        public ICustomSampler Clone() => new Drawing(seed) { _random = _random };

        public void Dispose()
        {
        }
    }

    private sealed class Penalties(int window, float repeat, float frequency, float presence) : ICustomSampler
    {
        private readonly PenaltyWindow _window = new();
        private readonly List<int> _accepted = [];

        public string Name => "penalties";

        public void Apply(ref LLamaTokenDataArrayNative tokenData)
        {
            foreach (ref LLamaTokenData candidate in tokenData.Data)
            {
                if (_window.Counts.TryGetValue((int)candidate.ID, out int count))
                {
                    candidate.Logit = candidate.Logit <= 0 ? candidate.Logit * repeat : candidate.Logit / repeat;
                    candidate.Logit -= count * frequency + presence;
                    tokenData.Sorted = false;
                }
            }
        }

        public void Accept(LLamaToken token)
        {
            _window.Add((int)token, window);
            _accepted.Add((int)token);
        }

        public void Reset()
        {
            _window.Clear();
            _accepted.Clear();
        }

        public ICustomSampler Clone()
        {
            var copy = new Penalties(window, repeat, frequency, presence);
            _accepted.ForEach(token => copy.Accept(token));
            return copy;
        }

        public void Dispose()
        {
        }
    }

    private sealed class Mirostat(string name, uint seed, float tau, float eta, Action<CandidateSet, double> narrow) : ICustomSampler, ISeeded
    {
        private readonly CandidateSet _set = new();
        private Xoshiro256 _random = new(seed);
        private double _mu = 2 * tau;

        public uint Seed => seed;

        public string Name => name;

        public void Apply(ref LLamaTokenDataArrayNative tokenData)
        {
            Narrow(ref tokenData, true, _set, set => narrow(set, _mu));
            Draw(ref tokenData, _random.NextDouble());
            _mu -= eta * (-Math.Log2(tokenData.Data[(int)tokenData.Selected].Probability) - tau);
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Reset() => (_random, _mu) = (new Xoshiro256(seed), 2 * tau);

        public ICustomSampler Clone() => new Mirostat(name, seed, tau, eta, narrow) { _random = _random, _mu = _mu };

        public void Dispose()
        {
        }
    }
}
