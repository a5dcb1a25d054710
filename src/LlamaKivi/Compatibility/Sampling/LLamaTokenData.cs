namespace LlamaKivi.Native;

/// <summary>A candidate for the next token.</summary>
public struct LLamaTokenData : IEquatable<LLamaTokenData>
{
    /// <summary>The token.</summary>
    public LLamaToken ID;

    /// <summary>Logit: the log probability up to a constant.</summary>
    public float Logit;

    /// <summary>Probability, 0 to 1, set by <see cref="LLamaTokenDataArray.Softmax"/>.</summary>
    public float Probability;

    /// <summary>Creates a candidate.</summary>
    public LLamaTokenData(LLamaToken id, float logit, float probability)
    {
        ID = id;
        Logit = logit;
        Probability = probability;
    }

    /// <summary>Whether two candidates are equal.</summary>
    public static bool operator ==(LLamaTokenData left, LLamaTokenData right) => left.Equals(right);

    /// <summary>Whether two candidates differ.</summary>
    public static bool operator !=(LLamaTokenData left, LLamaTokenData right) => !left.Equals(right);

    /// <inheritdoc/>
    public readonly bool Equals(LLamaTokenData other) =>
        ID == other.ID && Logit.Equals(other.Logit) && Probability.Equals(other.Probability);

    /// <inheritdoc/>
    public readonly override bool Equals(object? obj) => obj is LLamaTokenData other && Equals(other);

    /// <inheritdoc/>
    public readonly override int GetHashCode() => HashCode.Combine(ID, Logit, Probability);
}
