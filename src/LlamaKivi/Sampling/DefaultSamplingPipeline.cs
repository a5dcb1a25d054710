using System.ComponentModel;
using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Sampling;

/// <summary>Chooses at random, by the model's probabilities after a chain of adjustments.</summary>
/// <remarks>
/// The chain: grammar, logit bias, penalties, DRY, top-k, top-n-sigma, typical, top-p, min-p, XTC, temperature, draw. The draw uses xoshiro256** seeded by <see cref="Seed"/>:
/// equal logits, options, accepted tokens and seed give equal tokens on every platform. No memory is allocated for a token once the buffers have grown.
/// </remarks>
public class DefaultSamplingPipeline : BaseSamplingPipeline
{
    private readonly CandidateSet _candidates = new();
    private readonly PenaltyWindow _window = new();
    private KeyValuePair<LLamaToken, float>[] _bias = [];
    private float[] _adjusted = [];  // [vocabulary], the logits after bias and penalties
    private readonly RepeatedSequences _repeats = new();
    private double? _mu;  // Mirostat's bound on the surprise
    private Xoshiro256 _random;

    /// <summary>Creates a pipeline with a random seed.</summary>
    public DefaultSamplingPipeline() => Seed = (uint)Random.Shared.NextInt64(1L << 32);

    /// <summary>What is added to the logits of some tokens; -infinity rules a token out. Copied when it is set.</summary>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(LogitBias))]
    [JsonConverter(typeof(LogitBiasConverter))]
    public IReadOnlyDictionary<LLamaToken, float> LogitBias
    {
        get;
        set
        {
            ArgumentNullException.ThrowIfNull(value, nameof(LogitBias));
            foreach ((LLamaToken token, float bias) in value)
            {
                if ((int)token < 0 || float.IsNaN(bias) || float.IsPositiveInfinity(bias))
                {
                    throw new ArgumentOutOfRangeException(
                        nameof(LogitBias), $"The bias of token {token} is {bias}; tokens are not negative, and a bias is a number or -infinity.");
                }
            }

            field = value.ToDictionary();
            _bias = [.. field];
        }
    } = new Dictionary<LLamaToken, float>();

    /// <summary>The section of <see cref="LogitBias"/>, which configuration binders set; null when it is read.</summary>
    [ConfigurationKeyName(nameof(LogitBias)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? LogitBiasSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                ConfigurationValues.Set(value, () => LogitBias = ConfigurationValues.ReadLogitBias(value));
            }
        }
    }

    /// <summary>Divides positive logits of recent tokens and multiplies negative ones; above 0, 1: off.</summary>
    public float RepeatPenalty
    {
        get;
        set => field = Check(value, value > 0 && float.IsFinite(value), nameof(RepeatPenalty), "a number above 0");
    } = 1;

    /// <summary>Subtracted from the logit of a recent token for each time it occurs; -2 to 2, 0: off.</summary>
    public float FrequencyPenalty
    {
        get;
        set => field = Check(value, value is >= -2 and <= 2, nameof(FrequencyPenalty), "from -2 to 2");
    }

    /// <summary>Subtracted from the logit of a recent token once; -2 to 2, 0: off.</summary>
    public float PresencePenalty
    {
        get;
        set => field = Check(value, value is >= -2 and <= 2, nameof(PresencePenalty), "from -2 to 2");
    }

    /// <summary>Number of accepted tokens that count as recent; 0: penalties off.</summary>
    public int PenaltyCount
    {
        get;
        set => field = (int)Check(value, value >= 0, nameof(PenaltyCount), "0 or more");
    } = 64;

    /// <summary>Whether penalties apply to line breaks. Where the model's line break is not known, they do.</summary>
    public bool PenalizeNewline { get; set; }

    /// <summary>Whether tokens that end the text are ruled out. Needs a context: bare logits do not say which those are.</summary>
    public bool PreventEOS { get; set; }

    /// <summary>Divides the logits: below 1 sharpens, above 1 flattens. 0 or less: the greatest logit after bias and penalties, no draw.</summary>
    public float Temperature
    {
        get;
        set => field = Check(value, float.IsFinite(value), nameof(Temperature), "a number");
    } = 0.75f;

    /// <summary>Most tokens to choose from; 0: no limit.</summary>
    public int TopK
    {
        get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(TopK));
            field = value;
        }
    } = 40;

    /// <summary>Mass of the most typical tokens that are kept (Meister et al. 2022); 1: off.</summary>
    public float TypicalP
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(TypicalP), "from 0 to 1");
    } = 1;

    /// <summary>Mass of the most probable tokens that are kept (Holtzman et al. 2020); 1: off.</summary>
    public float TopP
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(TopP), "from 0 to 1");
    } = 0.9f;

    /// <summary>Least probability, as a fraction of the most probable token's; 0: off.</summary>
    public float MinP
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(MinP), "from 0 to 1");
    } = 0.1f;

    /// <summary>Fewest tokens that <see cref="TypicalP"/>, <see cref="TopP"/> and <see cref="MinP"/> each keep.</summary>
    public int MinKeep
    {
        get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(MinKeep));
            field = value;
        }
    } = 1;

    /// <summary>What the text must follow; null: anything. Needs a context of a model with a vocabulary.</summary>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(Grammar))]
    [JsonConverter(typeof(GrammarJsonConverter))]
    public Grammar? Grammar { get; set; }

    /// <summary>The section of <see cref="Grammar"/>, which configuration binders set; null when it is read.</summary>
    [ConfigurationKeyName(nameof(Grammar)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? GrammarSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                ConfigurationValues.Set(value, () => Grammar = ConfigurationValues.ReadGrammar(value));
            }
        }
    }

    /// <summary>A hint: what a grammar allows is looked up by state, so that there is nothing to choose.</summary>
    [JsonConverter(typeof(EnumNumberConverter<GrammarOptimizationMode>))]
    public GrammarOptimizationMode GrammarOptimization { get; set; } = GrammarOptimizationMode.Extended;

    /// <summary>Keeps the tokens whose logit is at most this many standard deviations below the greatest; 0: off.</summary>
    /// <remarks>Tang et al., "Top-n-sigma: Not All Logits Are You Need", 2024.</remarks>
    public float TopNSigma
    {
        get;
        set => field = Check(value, value >= 0 && float.IsFinite(value), nameof(TopNSigma), "a number of 0 or more");
    }

    /// <summary>How often the tokens above <see cref="XtcThreshold"/> are ruled out but for the least probable of them; 0 to 1, 0: off.</summary>
    /// <remarks>"Exclude top choices", by P. E. Weidmann, 2024.</remarks>
    public float XtcProbability
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(XtcProbability), "from 0 to 1");
    }

    /// <summary>Probability from which <see cref="XtcProbability"/> counts a token among the top choices; above 0.5 it never does.</summary>
    public float XtcThreshold
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(XtcThreshold), "from 0 to 1");
    } = 0.1f;

    /// <summary>Strength of the penalty on tokens that would repeat a sequence of the text ("don't repeat yourself"); 0: off.</summary>
    /// <remarks>The penalty is DryMultiplier * DryBase ^ (length of the repeated sequence - DryAllowedLength). By P. E. Weidmann, 2024.</remarks>
    public float DryMultiplier
    {
        get;
        set => field = Check(value, value >= 0 && float.IsFinite(value), nameof(DryMultiplier), "a number of 0 or more");
    }

    /// <summary>How fast the penalty of <see cref="DryMultiplier"/> grows with the length; at least 1.</summary>
    public float DryBase
    {
        get;
        set => field = Check(value, value >= 1 && float.IsFinite(value), nameof(DryBase), "a number of 1 or more");
    } = 1.75f;

    /// <summary>Length of a repeated sequence that goes unpunished.</summary>
    public int DryAllowedLength
    {
        get;
        set => field = (int)Check(value, value >= 0, nameof(DryAllowedLength), "0 or more");
    } = 2;

    /// <summary>Accepted tokens that <see cref="DryMultiplier"/> looks back over.</summary>
    public int DryRange
    {
        get;
        set => field = (int)Check(value, value >= 0, nameof(DryRange), "0 or more");
    } = 1024;

    /// <summary>Tokens over which a repeated sequence does not reach, such as those of line breaks.</summary>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(DryBreakers))]
    [JsonConverter(typeof(TokenSetConverter))]
    public IReadOnlySet<LLamaToken> DryBreakers { get; set => field = value ?? new HashSet<LLamaToken>(); } = new HashSet<LLamaToken>();

    /// <summary>The section of <see cref="DryBreakers"/>, which configuration binders set; null when it is read.</summary>
    [ConfigurationKeyName(nameof(DryBreakers)), JsonIgnore, EditorBrowsable(EditorBrowsableState.Never)]
    public IConfigurationSection? DryBreakersSection
    {
        get => null;
        set
        {
            if (value is not null && ConfigurationValues.IsSet(value))
            {
                DryBreakers = ConfigurationValues.ReadTokens(value);
            }
        }
    }

    /// <summary>Mirostat, which steers the surprise of the text to <see cref="MirostatTau"/>; top-k, typical, top-p, min-p, top-n-sigma and XTC are then not used.</summary>
    /// <remarks>Basu et al., "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity", 2021.</remarks>
    [JsonConverter(typeof(EnumNumberConverter<MirostatType>))]
    public MirostatType Mirostat { get; set; } = MirostatType.Disable;

    /// <summary>The surprise to steer to, in bits for each token.</summary>
    public float MirostatTau
    {
        get;
        set => field = Check(value, value > 0 && float.IsFinite(value), nameof(MirostatTau), "a number above 0");
    } = 5;

    /// <summary>How fast Mirostat steers.</summary>
    public float MirostatEta
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(MirostatEta), "from 0 to 1");
    } = 0.1f;

    /// <summary>Where the random numbers start; setting it starts them again.</summary>
    public uint Seed
    {
        get;
        set
        {
            using PipelineGuard.Entry entry = Enter();
            field = value;
            _random = new Xoshiro256(value);
        }
    }

    private bool Penalizes => (RepeatPenalty != 1 || FrequencyPenalty != 0 || PresencePenalty != 0) && _window.Counts.Count > 0;

    /// <inheritdoc/>
    public override LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        using PipelineGuard.Entry entry = EnterToSample();
        LLamaToken token = Choose(Constrain(ctx, ctx.GetLogitsIth(index), Grammar), ctx.EndTokens, ctx.NewlineToken);
        Follow(token);
        return token;
    }

    /// <inheritdoc/>
    public override LLamaToken Sample(ReadOnlySpan<float> logits)
    {
        using PipelineGuard.Entry entry = EnterToSample();
        return Choose(logits, null, null);
    }

    /// <inheritdoc/>
    /// <remarks>The tokens kept come first. They have their logits divided by the temperature and their probabilities.</remarks>
    public override void Apply(SafeLLamaContextHandle ctx, ref LLamaTokenDataArrayNative data)
    {
        Apply(ctx, new LLamaTokenDataArray(data.Memory, data.Sorted));
        data.Sorted = false;
    }

    /// <inheritdoc/>
    public override void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        using PipelineGuard.Entry entry = Enter();
        Apply(data, ctx.EndTokens, ctx.NewlineToken);
    }

    /// <summary>Forgets the tokens accepted, and starts the random numbers again at <see cref="Seed"/>.</summary>
    public override void Reset()
    {
        using PipelineGuard.Entry entry = Enter();
        BeginText();
        _window.Clear();
        _repeats.Clear();
        _mu = null;
        _random = new Xoshiro256(Seed);
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentOutOfRangeException">The token is negative.</exception>
    public override void Accept(LLamaToken token)
    {
        ArgumentOutOfRangeException.ThrowIfNegative((int)token, nameof(token));
        using PipelineGuard.Entry entry = Enter();
        _window.Add((int)token, PenaltyCount);
        if (DryMultiplier > 0 && DryRange > 0)
        {
            _repeats.Accept((int)token, DryRange);
        }
    }

    internal void Apply(LLamaTokenDataArray data, int[]? endTokens, int? newline)
    {
        Span<LLamaTokenData> entries = data.Data.Span;
        LLamaTokenData[] old = entries.ToArray();
        var logits = new float[old.Length];
        int[] ends = EndsToPrevent(endTokens);
        bool penalizes = Penalizes;
        for (int i = 0; i < old.Length; i++)
        {
            int id = (int)old[i].ID;
            logits[i] = old[i].Logit + LogitBias.GetValueOrDefault(id);
            if (penalizes && _window.Counts.TryGetValue(id, out int count) && (PenalizeNewline || id != newline))
            {
                logits[i] = Penalize(logits[i], count);
            }

            if (Array.IndexOf(ends, id) >= 0)
            {
                logits[i] = float.NegativeInfinity;
            }
        }

        int n = 0;
        var kept = new bool[old.Length];
        if (Temperature <= 0)
        {
            int chosen = Greatest(logits);
            kept[chosen] = true;
            entries[n++] = new LLamaTokenData(old[chosen].ID, logits[chosen], 1);
        }
        else
        {
            CheckedMax(logits);
            Narrow(logits);
            double sum = _candidates.Weigh(Temperature);
            for (int i = 0; i < _candidates.Ids.Length; i++)
            {
                int index = _candidates.Ids[i];
                kept[index] = true;
                entries[n++] = new LLamaTokenData(old[index].ID, logits[index] / Temperature, (float)(_candidates.Weight(i) / sum));
            }
        }

        for (int i = 0; i < old.Length; i++)
        {
            if (!kept[i])
            {
                entries[n++] = new LLamaTokenData(old[i].ID, float.NegativeInfinity, 0);
            }
        }
    }

    internal LLamaToken Choose(ReadOnlySpan<float> logits, int[]? endTokens, int? newline)
    {
        ReadOnlySpan<float> adjusted = Adjust(logits, EndsToPrevent(endTokens), newline);
        int token;
        if (Temperature <= 0)
        {
            token = Greatest(adjusted);
        }
        else
        {
            CheckedMax(adjusted);
            token = Mirostat == MirostatType.Disable ? Draw(adjusted) : DrawMirostat(adjusted);
        }

        Accept(token);
        return token;
    }

    private int Draw(ReadOnlySpan<float> logits)
    {
        Narrow(logits);
        if (XtcProbability > 0 && XtcThreshold <= 0.5f && _random.NextDouble() < XtcProbability)
        {
            _candidates.ExcludeTopChoices(XtcThreshold, MinKeep);
        }

        return _candidates.Draw(Temperature, _random.NextDouble());
    }

    private int DrawMirostat(ReadOnlySpan<float> logits)
    {
        _candidates.Select(logits, 0, sort: true);
        double mu = _mu ?? 2 * MirostatTau;
        if (Mirostat == MirostatType.Mirostat)
        {
            _candidates.MirostatTopK(mu, logits.Length, Temperature);
        }
        else
        {
            _candidates.KeepLessSurprising(mu, Temperature);
        }

        int token = _candidates.Draw(Temperature, _random.NextDouble(), out double probability);
        _mu = mu - MirostatEta * (-Math.Log2(probability) - MirostatTau);
        return token;
    }

    private static float Check(float value, bool valid, string property, string range) =>
        valid ? value : throw new ArgumentOutOfRangeException(property, $"{property} is {value}; it must be {range}.");

    private int[] EndsToPrevent(int[]? endTokens)
    {
        if (!PreventEOS)
        {
            return [];
        }

        return endTokens ?? throw new InvalidOperationException(
            "PreventEOS needs to know the tokens that end a text. Sample from a context of a model with a vocabulary, or rule the tokens out in LogitBias.");
    }

    // The logits after bias and penalties; the given ones themselves if there is nothing to change.
    private ReadOnlySpan<float> Adjust(ReadOnlySpan<float> logits, int[] ends, int? newline)
    {
        bool dry = DryMultiplier > 0 && DryRange > 0;
        if (_bias.Length == 0 && ends.Length == 0 && !Penalizes && !dry)
        {
            return logits;
        }

        if (_adjusted.Length < logits.Length)
        {
            _adjusted = new float[logits.Length];
        }

        Span<float> adjusted = _adjusted.AsSpan(0, logits.Length);
        logits.CopyTo(adjusted);
        foreach ((LLamaToken token, float bias) in _bias)
        {
            At(adjusted, (int)token, "LogitBias has") += bias;
        }

        if (Penalizes)
        {
            foreach ((int token, int count) in _window.Counts)
            {
                if (PenalizeNewline || token != newline)
                {
                    ref float logit = ref At(adjusted, token, "The accepted tokens have");
                    logit = Penalize(logit, count);
                }
            }
        }

        if (dry)
        {
            foreach ((int token, float penalty) in _repeats.Penalties(DryMultiplier, DryBase, DryAllowedLength, DryRange, DryBreakers))
            {
                At(adjusted, token, "The accepted tokens have") -= penalty;
            }
        }

        foreach (int token in ends)
        {
            At(adjusted, token, "The end tokens have") = float.NegativeInfinity;
        }

        return adjusted;
    }

    private static ref float At(Span<float> logits, int token, string who)
    {
        if ((uint)token >= (uint)logits.Length)
        {
            throw new InvalidOperationException(
                $"{who} token {token}, but there are {logits.Length} logits. A pipeline serves one vocabulary; reset it when the model changes.");
        }

        return ref logits[token];
    }

    // Repetition penalty: Keskar et al. 2019, with the sign respected; the other two as in the OpenAI API.
    private float Penalize(float logit, int count)
    {
        logit = logit <= 0 ? logit * RepeatPenalty : logit / RepeatPenalty;
        return logit - count * FrequencyPenalty - PresencePenalty;
    }

    private void Narrow(ReadOnlySpan<float> logits)
    {
        _candidates.Select(logits, TopK, sort: TopP < 1 || MinKeep > 1 || XtcProbability > 0);
        if (TopNSigma > 0)
        {
            _candidates.TopNSigma(TopNSigma);
        }

        if (TypicalP < 1)
        {
            _candidates.Typical(TypicalP, MinKeep);
        }

        if (TopP < 1)
        {
            _candidates.TopP(TopP, MinKeep);
        }

        if (MinP > 0)
        {
            _candidates.MinP(MinP, MinKeep);
        }
    }

    /// <summary>How a grammar is applied.</summary>
    public enum GrammarOptimizationMode
    {
        /// <summary>To all tokens first.</summary>
        None,

        /// <summary>To the chosen token first.</summary>
        Basic,

        /// <summary>To the most probable tokens first.</summary>
        Extended,
    }
}
