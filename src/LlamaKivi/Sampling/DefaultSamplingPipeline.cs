using System.ComponentModel;
using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Sampling;

/// <summary>Samples from the model's distribution after configurable adjustments.</summary>
/// <remarks>
/// Order: grammar, logit bias, penalties, DRY, top-k, top-n-sigma, typical, top-p, min-p, XTC, temperature, draw. The draw uses xoshiro256** seeded by <see cref="Seed"/>:
/// equal logits, options, accepted tokens and seed give equal tokens on every platform. Buffers are reused, so tokens are sampled without allocation.
/// </remarks>
public partial class DefaultSamplingPipeline : BaseSamplingPipeline
{
    private readonly LogitAdjustments _adjustments = new();
    private Xoshiro256 _random;

    /// <summary>Creates a pipeline with a random seed.</summary>
    public DefaultSamplingPipeline() => Seed = (uint)Random.Shared.NextInt64(1L << 32);

    /// <summary>Biases added to the logits of tokens; -infinity excludes a token. Copied on assignment.</summary>
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
            _adjustments.Bias = [.. field];
        }
    } = new Dictionary<LLamaToken, float>();

    /// <summary>Configuration section of <see cref="LogitBias"/>, set by configuration binders; reads as null.</summary>
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

    /// <summary>Repetition penalty: divides positive logits of recent tokens and multiplies negative ones; above 0, 1: off.</summary>
    public float RepeatPenalty
    {
        get;
        set => field = Check(value, value > 0 && float.IsFinite(value), nameof(RepeatPenalty), "a number above 0");
    } = 1;

    /// <summary>Frequency penalty: subtracted from the logit of a recent token once per occurrence; -2 to 2, 0: off.</summary>
    public float FrequencyPenalty
    {
        get;
        set => field = Check(value, value is >= -2 and <= 2, nameof(FrequencyPenalty), "from -2 to 2");
    }

    /// <summary>Presence penalty: subtracted from the logit of a recent token once; -2 to 2, 0: off.</summary>
    public float PresencePenalty
    {
        get;
        set => field = Check(value, value is >= -2 and <= 2, nameof(PresencePenalty), "from -2 to 2");
    }

    /// <summary>Number of last accepted tokens that penalties apply to; 0: off.</summary>
    public int PenaltyCount
    {
        get;
        set => field = Check(value, value >= 0, nameof(PenaltyCount), "0 or more");
    } = 64;

    /// <summary>Whether penalties apply to line breaks. They always do if the model's line break token is unknown.</summary>
    public bool PenalizeNewline { get; set; }

    /// <summary>Whether end-of-generation tokens are excluded. Requires sampling from a context, because bare logits do not identify them.</summary>
    public bool PreventEOS { get; set; }

    /// <summary>Divides the logits: below 1 sharpens, above 1 flattens the distribution. 0 or less: greedy, after bias and penalties.</summary>
    public float Temperature
    {
        get;
        set => field = Check(value, float.IsFinite(value), nameof(Temperature), "a number");
    } = 0.75f;

    /// <summary>Number of most probable tokens to keep; 0: all.</summary>
    public int TopK
    {
        get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(TopK));
            field = value;
        }
    } = 40;

    /// <summary>Locally typical sampling: total probability of the kept tokens (Meister et al. 2022); 1: off.</summary>
    public float TypicalP
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(TypicalP), "from 0 to 1");
    } = 1;

    /// <summary>Nucleus sampling: total probability of the kept tokens (Holtzman et al. 2020); 1: off.</summary>
    public float TopP
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(TopP), "from 0 to 1");
    } = 0.9f;

    /// <summary>Minimum probability relative to the most probable token's; 0: off.</summary>
    public float MinP
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(MinP), "from 0 to 1");
    } = 0.1f;

    /// <summary>Minimum number of tokens kept by each of <see cref="TypicalP"/>, <see cref="TopP"/> and <see cref="MinP"/>.</summary>
    public int MinKeep
    {
        get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(MinKeep));
            field = value;
        }
    } = 1;

    /// <summary>Grammar of the text; null: none. Requires sampling from a context of a model with a vocabulary.</summary>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(Grammar))]
    [JsonConverter(typeof(GrammarJsonConverter))]
    public Grammar? Grammar { get; set; }

    /// <summary>Configuration section of <see cref="Grammar"/>, set by configuration binders; reads as null.</summary>
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

    /// <summary>Keeps tokens whose logit is at most this many standard deviations below the largest; 0: off.</summary>
    /// <remarks>Tang et al., "Top-n-sigma: Not All Logits Are You Need", 2024.</remarks>
    public float TopNSigma
    {
        get;
        set => field = Check(value, value >= 0 && float.IsFinite(value), nameof(TopNSigma), "a number of 0 or more");
    }

    /// <summary>XTC: probability of excluding all tokens of at least <see cref="XtcThreshold"/> except the least probable of them; 0 to 1, 0: off.</summary>
    /// <remarks>"Exclude top choices", by P. E. Weidmann, 2024.</remarks>
    public float XtcProbability
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(XtcProbability), "from 0 to 1");
    }

    /// <summary>XTC: minimum probability of the tokens to exclude; above 0.5 XTC has no effect.</summary>
    public float XtcThreshold
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(XtcThreshold), "from 0 to 1");
    } = 0.1f;

    /// <summary>DRY ("don't repeat yourself"): strength of the penalty on tokens that would extend a repeated sequence; 0: off.</summary>
    /// <remarks>Penalty: DryMultiplier * DryBase ^ (length of the repeated sequence - DryAllowedLength). By P. E. Weidmann, 2024.</remarks>
    public float DryMultiplier
    {
        get;
        set => field = Check(value, value >= 0 && float.IsFinite(value), nameof(DryMultiplier), "a number of 0 or more");
    }

    /// <summary>DRY: growth of the penalty per token of the repeated sequence; at least 1.</summary>
    public float DryBase
    {
        get;
        set => field = Check(value, value >= 1 && float.IsFinite(value), nameof(DryBase), "a number of 1 or more");
    } = 1.75f;

    /// <summary>DRY: minimum length of penalized sequences.</summary>
    public int DryAllowedLength
    {
        get;
        set => field = Check(value, value >= 0, nameof(DryAllowedLength), "0 or more");
    } = 2;

    /// <summary>DRY: number of last accepted tokens to search.</summary>
    public int DryRange
    {
        get;
        set => field = Check(value, value >= 0, nameof(DryRange), "0 or more");
    } = 1024;

    /// <summary>DRY: tokens that end a repeated sequence, such as line breaks.</summary>
    [ConfigurationKeyName(ConfigurationValues.Hidden + nameof(DryBreakers))]
    [JsonConverter(typeof(TokenSetConverter))]
    public IReadOnlySet<LLamaToken> DryBreakers { get; set => field = value ?? new HashSet<LLamaToken>(); } = new HashSet<LLamaToken>();

    /// <summary>Configuration section of <see cref="DryBreakers"/>, set by configuration binders; reads as null.</summary>
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

    /// <summary>Mirostat controls the surprise of the text towards <see cref="MirostatTau"/>. It replaces top-k, typical, top-p, min-p, top-n-sigma and XTC.</summary>
    /// <remarks>Basu et al., "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity", 2021.</remarks>
    [JsonConverter(typeof(EnumNumberConverter<MirostatType>))]
    public MirostatType Mirostat { get; set; } = MirostatType.Disable;

    /// <summary>Mirostat: target surprise in bits per token.</summary>
    public float MirostatTau
    {
        get;
        set => field = Check(value, value > 0 && float.IsFinite(value), nameof(MirostatTau), "a number above 0");
    } = 5;

    /// <summary>Mirostat: learning rate.</summary>
    public float MirostatEta
    {
        get;
        set => field = Check(value, value is >= 0 and <= 1, nameof(MirostatEta), "from 0 to 1");
    } = 0.1f;

    /// <summary>Seed of the random numbers; setting it restarts them.</summary>
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

    private static T Check<T>(T value, bool valid, string property, string range) =>
        valid ? value : throw new ArgumentOutOfRangeException(property, $"{property} is {value}; it must be {range}.");
}
