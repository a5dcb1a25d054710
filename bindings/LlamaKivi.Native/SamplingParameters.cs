namespace LlamaKivi.Native;

/// <summary>How <see cref="ContextHandle.DecodeSample"/> samples the token after one row of logits.</summary>
/// <remarks>
/// Penalties first change the logits of recent tokens. Filters then keep the <see cref="TopK"/> tokens of greatest logits, of these the fewest that hold <see cref="TopP"/> of their
/// probability, and of these the tokens with at least <see cref="MinP"/> of the highest probability. The token is where the cumulative probability of the kept tokens, at the temperature,
/// exceeds <see cref="Draw"/>; the tokens are in descending order of logits if <see cref="TopK"/> or <see cref="TopP"/> limits them, otherwise in order of their ids.
/// </remarks>
public readonly record struct SamplingParameters
{
    /// <summary>Creates parameters that take the token of the greatest logit.</summary>
    public SamplingParameters()
    {
    }

    /// <summary>Divides the logits of the tokens kept; 0: take the token of the greatest logit.</summary>
    public float Temperature { get; init; }

    /// <summary>Number of most probable tokens to keep; 0: off.</summary>
    public int TopK { get; init; }

    /// <summary>Probability to keep, above 0; 1: off.</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Minimum probability relative to the highest; 0: off.</summary>
    public float MinP { get; init; }

    /// <summary>Divides positive logits of recent tokens and multiplies others; 1: off.</summary>
    public float RepeatPenalty { get; init; } = 1;

    /// <summary>Subtracted from the logit of a recent token once per occurrence; 0: off.</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Subtracted from the logit of a recent token once; 0: off.</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Number of recent tokens, which penalties apply to.</summary>
    public int RecentCount { get; init; }

    /// <summary>Uniform random number, from 0 to below 1; unused at temperature 0.</summary>
    public double Draw { get; init; }

    /// <summary>Whether the logits are kept and no token is sampled. The other parameters are then unused.</summary>
    public bool KeepLogits { get; init; }

    internal unsafe lk_sampling ToNative(lk_token_count* recent)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(TopK);
        return new lk_sampling
        {
            temperature = Temperature,
            top_k = (uint)TopK,
            top_p = TopP,
            min_p = MinP,
            repeat_penalty = RepeatPenalty,
            frequency_penalty = FrequencyPenalty,
            presence_penalty = PresencePenalty,
            n_recent = (uint)RecentCount,
            recent = recent,
            draw = Draw,
            keep_logits = KeepLogits ? 1u : 0,
        };
    }
}

/// <summary>A recent token of a text and its number of occurrences.</summary>
/// <param name="Token">The token. A row's tokens ascend.</param>
/// <param name="Count">Its occurrences, at least 1.</param>
public readonly record struct TokenCount(int Token, int Count);
