using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Common;

/// <summary>Types and sizes of the KV cache; keys and values have independent types.</summary>
[JsonConverter(typeof(KvCacheParamsConverter))]
public sealed record KvCacheParams
{
    private const int PageTokens = 128;

    private readonly KvCacheType? _typeK;
    private readonly KvCacheType? _typeV;

    // Used when the parameters set no cache.
    internal static KvCacheParams Default { get; } = new();

    // Default types fall back to types that fit the model; explicit types that do not fit are an error.
    internal bool IsTypeAskedFor => _typeK is not null || _typeV is not null;

    /// <summary>Type of the cached keys.</summary>
    public KvCacheType TypeK
    {
        get => _typeK ?? KvCacheType.Kivi2;
        init => _typeK = value;
    }

    /// <summary>Type of the cached values.</summary>
    public KvCacheType TypeV
    {
        get => _typeV ?? KvCacheType.Kivi2;
        init => _typeV = value;
    }

    /// <summary>Quantization group size: 16, 32, 64 or 128. A key group spans this many tokens.</summary>
    public int Group { get; init; } = 32;

    /// <summary>Residual length: number of most recent tokens kept in full precision; a positive multiple of <see cref="Group"/>.</summary>
    public int Residual { get; init; } = 128;

    /// <summary>Number of attention sinks, the first tokens of a sequence, kept in full precision; at most <see cref="Group"/>. Null: 4 for kivi2 and kivi4, 0 for other types.</summary>
    public int? Sinks { get; init; }

    /// <summary>Parameters whose keys and values have the named type, such as "kivi2".</summary>
    /// <exception cref="ArgumentException">The name is not a KV cache type.</exception>
    public static KvCacheParams Parse(string name)
    {
        KvCacheType type = KvCacheType.Parse(name);
        return new KvCacheParams { TypeK = type, TypeV = type };
    }

    /// <inheritdoc/>
    public bool Equals(KvCacheParams? other) =>
        other is not null && (TypeK, TypeV, Group, Residual, Sinks).Equals((other.TypeK, other.TypeV, other.Group, other.Residual, other.Sinks));

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(TypeK, TypeV, Group, Residual, Sinks);

    /// <summary>Validates the sizes.</summary>
    /// <exception cref="ArgumentException">A size is out of range; the message gives the valid values.</exception>
    public void Validate()
    {
        if (Group is < 16 or > PageTokens || (Group & (Group - 1)) != 0)
        {
            throw new ArgumentException($"KvCache.Group is {Group}; it must be 16, 32, 64 or 128", nameof(Group));
        }

        if (Residual <= 0 || Residual % Group != 0)
        {
            throw new ArgumentException(
                $"KvCache.Residual is {Residual}; it must be a positive multiple of the group ({Group}), such as {Math.Max(1, Residual / Group) * Group}",
                nameof(Residual));
        }

        if (Sinks is < 0 || Sinks > Group)
        {
            throw new ArgumentException($"KvCache.Sinks is {Sinks}; it must be 0 to the group ({Group})", nameof(Sinks));
        }
    }
}
