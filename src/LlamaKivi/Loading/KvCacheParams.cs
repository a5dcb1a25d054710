using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Common;

/// <summary>Types and sizes of the KV cache; keys and values have independent types.</summary>
[JsonConverter(typeof(KvCacheParamsConverter))]
public sealed partial record KvCacheParams
{
    internal const int PageTokens = 128;      // of a page of the cache, as in the engine
    private const int MostResidual = 1 << 16;  // as in the engine

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

    /// <summary>Quantization group size: 16, 32, 64 or 128; 0: the type's own (64; 32 for kivi3 and for the types ending in -paper). A key group spans this many tokens.</summary>
    public int Group { get; init; }

    /// <summary>Residual length: number of most recent tokens that the ring holds, see <see cref="ResidualType"/>; a multiple of the group for the types ending in -paper. 0: none, not for KIVI types. Null: the type's own, 128 for KIVI types and 0 for others. At most 65,536. Not for f32, f16 and bf16.</summary>
    public int? Residual { get; init; }

    /// <summary>Number of attention sinks, the first tokens of a sequence, kept in 16 bits; at most the group, or 128 for types without groups. Null: 4 for kivi2, kivi3 and kivi4, 0 for other types. Not for f32, f16 and bf16.</summary>
    public int? Sinks { get; init; }

    /// <summary>Key channels that kivi2 and kivi3 store with 4 bits instead of 2, in eighths of the head, 0 to 8; the number of channels is rounded down to a multiple of 4. Null: 3 for kivi2, 4 for kivi3.</summary>
    public int? RefinedEighths { get; init; }

    /// <summary>Type of the most recent <see cref="Residual"/> tokens: f16 or q8_0. Null: q8_0; f16 for types of llama.cpp. The types ending in -paper always have f16.</summary>
    public KvCacheType? ResidualType { get; init; }

    /// <summary>Undo window, 0 to 64: number of rows kept after they left the most recent <see cref="Residual"/> tokens, so that a sequence can go back exactly by as many tokens. Null: 16. Types without a residual need none.</summary>
    public int? Undo { get; init; }

    /// <summary>Maximum memory of the cache in bytes, over all sequences, beside the context size in tokens; a batch that needs more fails as with a full cache. Null: no limit.</summary>
    public long? MemoryBudget { get; init; }

    /// <summary>Parameters whose keys and values have the named type, such as "kivi2".</summary>
    /// <exception cref="ArgumentException">The name is not a KV cache type.</exception>
    public static KvCacheParams Parse(string name)
    {
        KvCacheType type = KvCacheType.Parse(name);
        return new KvCacheParams { TypeK = type, TypeV = type };
    }

    /// <inheritdoc/>
    public bool Equals(KvCacheParams? other) =>
        other is not null && Fields.Equals(other.Fields);

    /// <inheritdoc/>
    public override int GetHashCode() => Fields.GetHashCode();

    private (KvCacheType, KvCacheType, int, int?, int?, int?, KvCacheType?, int?, long?) Fields =>
        (TypeK, TypeV, Group, Residual, Sinks, RefinedEighths, ResidualType, Undo, MemoryBudget);

    /// <summary>Validates the settings.</summary>
    /// <exception cref="ArgumentException">A setting is out of range, or neither type uses it; the message says what to change.</exception>
    public void Validate()
    {
        if (Group != 0 && (Group is < 16 or > PageTokens || (Group & (Group - 1)) != 0))
        {
            throw new ArgumentException($"KvCache.Group is {Group}; it must be 16, 32, 64 or 128, or 0 for the type's own", nameof(Group));
        }

        if (RefinedEighths is < 0 or > 8)
        {
            throw new ArgumentException($"KvCache.RefinedEighths is {RefinedEighths}; it must be 0 to 8 eighths of the head", nameof(RefinedEighths));
        }

        if (ResidualType is { } rows && rows != KvCacheType.F16 && rows != KvCacheType.Q8_0)
        {
            throw new ArgumentException($"KvCache.ResidualType is {rows}; it must be f16 or q8_0", nameof(ResidualType));
        }

        if (Undo is < 0 or > 64)
        {
            throw new ArgumentException($"KvCache.Undo is {Undo}; it must be 0 to 64 rows", nameof(Undo));
        }

        if (MemoryBudget is <= 0)
        {
            throw new ArgumentException($"KvCache.MemoryBudget is {MemoryBudget} bytes; it must be positive, or null for no limit", nameof(MemoryBudget));
        }

        if (Residual is < 0 or > MostResidual)
        {
            throw new ArgumentException($"KvCache.Residual is {Residual}; it must be 1 to {MostResidual}, or 0 for none", nameof(Residual));
        }

        foreach ((string setting, string message) in Unused())
        {
            throw new ArgumentException(message, setting);
        }

        foreach (KvCacheType type in (KvCacheType[])[TypeK, TypeV])
        {
            int group = GroupOf(type);
            if (Residual == 0 && type.IsKivi)
            {
                throw new ArgumentException($"KvCache.Residual is 0; {type} needs at least 1", nameof(Residual));
            }

            if (IsPaper(type) && Residual is { } residual && residual % group != 0)
            {
                throw new ArgumentException(
                    $"KvCache.Residual is {residual}; {type} needs a multiple of the group ({group}), such as {Math.Max(1, residual / group) * group}",
                    nameof(Residual));
            }

            int most = type.IsKivi ? group : PageTokens;
            if (Sinks is < 0 || Sinks > most)
            {
                throw new ArgumentException($"KvCache.Sinks is {Sinks}; it must be 0 to {(type.IsKivi ? "the group" : "a page")} ({most})", nameof(Sinks));
            }
        }
    }

    private static bool IsPaper(KvCacheType type) => type == KvCacheType.Kivi2Paper || type == KvCacheType.Kivi4Paper;

    /// <summary>Group size of a type: <see cref="Group"/>, or the type's own.</summary>
    /// <param name="type">The type.</param>
    public int GroupOf(KvCacheType type)
    {
        return Group != 0 ? Group : type == KvCacheType.Kivi2 || type == KvCacheType.Kivi4 ? 64 : 32;
    }
}
