using System.ComponentModel;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Type of the keys or values in the KV cache: "kivi4", "kivi3", "kivi2", "kivi4-paper", "kivi2-paper", or as in llama.cpp "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0" and "iq4_nl".</summary>
/// <remarks>The command line, configuration and JSON use the same names. Parsing ignores case and also accepts the property names (<c>Kivi2Paper</c>).</remarks>
[TypeConverter(typeof(KvCacheTypeConverter))]
[JsonConverter(typeof(KvCacheTypeJsonConverter))]
public readonly struct KvCacheType : IEquatable<KvCacheType>, IParsable<KvCacheType>
{
    // By value. The engine has the same names; a test compares them, so that reading configuration needs no native library.
    private static readonly (string Name, string Property)[] Known =
    [
        ("f16", nameof(F16)), ("kivi4", nameof(Kivi4)), ("kivi2", nameof(Kivi2)), ("kivi4-paper", nameof(Kivi4Paper)), ("kivi2-paper", nameof(Kivi2Paper)),
        ("q8_0", nameof(Q8_0)), ("q4_0", nameof(Q4_0)), ("f32", nameof(F32)), ("bf16", nameof(BF16)), ("q5_1", nameof(Q5_1)), ("q5_0", nameof(Q5_0)),
        ("q4_1", nameof(Q4_1)), ("iq4_nl", nameof(IQ4_NL)), ("kivi3", nameof(Kivi3)),
    ];

    private readonly byte _value;

    private KvCacheType(int value) => _value = (byte)value;

    /// <summary>16-bit floats, no quantization.</summary>
    public static KvCacheType F16 => new((int)lk_cache_type.LK_CACHE_F16);

    /// <summary>4-bit KIVI, refined recipe.</summary>
    public static KvCacheType Kivi4 => new((int)lk_cache_type.LK_CACHE_KIVI4);

    /// <summary>2-bit KIVI, refined recipe; the default.</summary>
    public static KvCacheType Kivi2 => new((int)lk_cache_type.LK_CACHE_KIVI2);

    /// <summary>4-bit KIVI as published (arXiv 2402.02750).</summary>
    public static KvCacheType Kivi4Paper => new((int)lk_cache_type.LK_CACHE_KIVI4_PAPER);

    /// <summary>2-bit KIVI as published (arXiv 2402.02750).</summary>
    public static KvCacheType Kivi2Paper => new((int)lk_cache_type.LK_CACHE_KIVI2_PAPER);

    /// <summary>8-bit blocks of 32 channels, as in llama.cpp.</summary>
    public static KvCacheType Q8_0 => new((int)lk_cache_type.LK_CACHE_Q8_0);

    /// <summary>4-bit blocks of 32 channels, as in llama.cpp.</summary>
    public static KvCacheType Q4_0 => new((int)lk_cache_type.LK_CACHE_Q4_0);

    /// <summary>32-bit floats: no rounding.</summary>
    public static KvCacheType F32 => new((int)lk_cache_type.LK_CACHE_F32);

    /// <summary>16-bit floats with the range of 32-bit floats.</summary>
    public static KvCacheType BF16 => new((int)lk_cache_type.LK_CACHE_BF16);

    /// <summary>5-bit blocks of 32 channels with a minimum, as in llama.cpp.</summary>
    public static KvCacheType Q5_1 => new((int)lk_cache_type.LK_CACHE_Q5_1);

    /// <summary>5-bit blocks of 32 channels, as in llama.cpp.</summary>
    public static KvCacheType Q5_0 => new((int)lk_cache_type.LK_CACHE_Q5_0);

    /// <summary>4-bit blocks of 32 channels with a minimum, as in llama.cpp.</summary>
    public static KvCacheType Q4_1 => new((int)lk_cache_type.LK_CACHE_Q4_1);

    /// <summary>4-bit blocks of 32 channels with levels that are denser near zero, as in llama.cpp.</summary>
    public static KvCacheType IQ4_NL => new((int)lk_cache_type.LK_CACHE_IQ4_NL);

    /// <summary>3.3-bit KIVI: as <see cref="Kivi2"/>, with more refined key channels and 3-bit values.</summary>
    public static KvCacheType Kivi3 => new((int)lk_cache_type.LK_CACHE_KIVI3);

    /// <summary>Whether this is a KIVI type: the most recent tokens stay in a residual ring, and keys are quantized in groups of tokens.</summary>
    public bool IsKivi => this == Kivi2 || this == Kivi3 || this == Kivi4 || this == Kivi2Paper || this == Kivi4Paper;

    /// <summary>Whether this type stores each element as a float, without quantization: f32, f16 or bf16.</summary>
    public bool IsFloat => this == F32 || this == F16 || this == BF16;

    /// <summary>All types.</summary>
    public static IReadOnlyList<KvCacheType> All { get; } = [.. Enumerable.Range(0, Known.Length).Select(value => new KvCacheType(value))];

    /// <summary>Names of all types.</summary>
    public static IReadOnlyList<string> Names { get; } = [.. Known.Select(type => type.Name)];

    internal static KvCacheType FromNative(lk_cache_type type) => new((int)type);

    internal lk_cache_type ToNative() => (lk_cache_type)_value;

    /// <summary>Parses a name such as "kivi2".</summary>
    /// <exception cref="ArgumentException">The name is unknown; the message lists the types.</exception>
    public static KvCacheType Parse(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return TryParse(name, out KvCacheType type)
            ? type
            : throw new ArgumentException($"'{name}' is not a KV cache type; use one of: {string.Join(", ", Names)}", nameof(name));
    }

    /// <summary>Parses a name such as "kivi2".</summary>
    /// <returns>False if the name is unknown.</returns>
    public static bool TryParse([NotNullWhen(true)] string? name, out KvCacheType type)
    {
        string text = name?.Trim() ?? "";
        int value = Array.FindIndex(Known, known => Same(text, known.Name) || Same(text, known.Property) || Same(text, EarlierName(known.Name)));
        type = new KvCacheType(Math.Max(value, 0));
        return value >= 0;
    }

    /// <inheritdoc/>
    static KvCacheType IParsable<KvCacheType>.Parse(string s, IFormatProvider? provider) => Parse(s);

    /// <inheritdoc/>
    static bool IParsable<KvCacheType>.TryParse([NotNullWhen(true)] string? s, IFormatProvider? provider, out KvCacheType result) => TryParse(s, out result);

    /// <summary>The name, "kivi2".</summary>
    public override string ToString() => Known[_value].Name;

    /// <inheritdoc/>
    public bool Equals(KvCacheType other) => _value == other._value;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is KvCacheType other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => _value;

    /// <summary>Whether two types are the same.</summary>
    public static bool operator ==(KvCacheType left, KvCacheType right) => left.Equals(right);

    /// <summary>Whether two types differ.</summary>
    public static bool operator !=(KvCacheType left, KvCacheType right) => !left.Equals(right);

    // The name in JSON of earlier versions.
    private static string EarlierName(string name) => "LK_CACHE_" + name.Replace('-', '_');

    private static bool Same(string left, string right) => left.Equals(right, StringComparison.OrdinalIgnoreCase);
}

/// <summary>Converts a <see cref="KvCacheType"/> from and to its name, for configuration binding.</summary>
public sealed class KvCacheTypeConverter : TypeConverter
{
    /// <inheritdoc/>
    public override bool CanConvertFrom(ITypeDescriptorContext? context, Type sourceType) => sourceType == typeof(string) || base.CanConvertFrom(context, sourceType);

    /// <inheritdoc/>
    /// <exception cref="ArgumentException">The name is unknown; the message lists the types.</exception>
    public override object? ConvertFrom(ITypeDescriptorContext? context, CultureInfo? culture, object value) =>
        value is string name ? KvCacheType.Parse(name) : base.ConvertFrom(context, culture, value);
}

/// <summary>Reads and writes a <see cref="KvCacheType"/> as its name.</summary>
public sealed class KvCacheTypeJsonConverter : JsonConverter<KvCacheType>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is not the name of a type; the message lists the names.</exception>
    public override KvCacheType Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        string? name = reader.TokenType == JsonTokenType.String
            ? reader.GetString()
            : throw new JsonException($"A KV cache type is a string ({string.Join(", ", KvCacheType.Names)}), not {reader.TokenType}.");
        return KvCacheType.TryParse(name, out KvCacheType type)
            ? type
            : throw new JsonException($"'{name}' is not a KV cache type; use one of: {string.Join(", ", KvCacheType.Names)}");
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, KvCacheType value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.WriteStringValue(value.ToString());
    }
}
