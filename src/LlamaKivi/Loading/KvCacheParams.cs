using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Common;

/// <summary>Types and sizes of the KV cache; keys and values are independent.</summary>
[JsonConverter(typeof(KvCacheParamsConverter))]
public sealed record KvCacheParams
{
    private const int PageTokens = 128;

    private readonly KvCacheType? _typeK;
    private readonly KvCacheType? _typeV;

    // What is taken when nothing is asked for.
    internal static KvCacheParams Default { get; } = new();

    // A model that the default types do not fit gets another type; a type that was asked for is then an error.
    internal bool IsTypeAskedFor => _typeK is not null || _typeV is not null;

    /// <summary>Type of the keys.</summary>
    public KvCacheType TypeK
    {
        get => _typeK ?? KvCacheType.Kivi2;
        init => _typeK = value;
    }

    /// <summary>Type of the values.</summary>
    public KvCacheType TypeV
    {
        get => _typeV ?? KvCacheType.Kivi2;
        init => _typeV = value;
    }

    /// <summary>Tokens a group of quantized keys spans: 16, 32, 64 or 128.</summary>
    public int Group { get; init; } = 32;

    /// <summary>Youngest tokens kept in full precision; a positive multiple of <see cref="Group"/>.</summary>
    public int Residual { get; init; } = 128;

    /// <summary>First tokens kept in full precision, at most <see cref="Group"/>; null: 4 for kivi2 and kivi4, 0 for the others.</summary>
    public int? Sinks { get; init; }

    /// <summary>Makes parameters with keys and values of the type with a name such as "kivi2".</summary>
    /// <exception cref="ArgumentException">There is no such type.</exception>
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

    /// <summary>Checks the sizes.</summary>
    /// <exception cref="ArgumentException">They do not fit; the message says which would.</exception>
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
