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
public partial class DefaultSamplingPipeline : BaseSamplingPipeline
{
    private readonly LogitAdjustments _adjustments = new();
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
            _adjustments.Bias = [.. field];
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

    private static float Check(float value, bool valid, string property, string range) =>
        valid ? value : throw new ArgumentOutOfRangeException(property, $"{property} is {value}; it must be {range}.");

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
