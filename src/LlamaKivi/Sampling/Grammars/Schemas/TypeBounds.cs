using System.Globalization;
using System.Numerics;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Adds what a .NET type can hold to the schema that was written for it.</summary>
internal static class TypeBounds
{
    private static readonly Dictionary<Type, (BigInteger Low, BigInteger High)> Integers = new()
    {
        [typeof(sbyte)] = (sbyte.MinValue, sbyte.MaxValue),
        [typeof(byte)] = (byte.MinValue, byte.MaxValue),
        [typeof(short)] = (short.MinValue, short.MaxValue),
        [typeof(ushort)] = (ushort.MinValue, ushort.MaxValue),
        [typeof(int)] = (int.MinValue, int.MaxValue),
        [typeof(uint)] = (uint.MinValue, uint.MaxValue),
        [typeof(long)] = (long.MinValue, long.MaxValue),
        [typeof(ulong)] = (ulong.MinValue, ulong.MaxValue),
        [typeof(Int128)] = (Int128.MinValue, Int128.MaxValue),
        [typeof(UInt128)] = (UInt128.MinValue, UInt128.MaxValue),
    };

    // Numbers with a fraction whose type has less than the default of schemas, ten to the power of 28.
    private static readonly Dictionary<Type, string> Sizes = new() { [typeof(Half)] = "65504" };

    private static readonly Dictionary<Type, string> KeyFormats = new()
    {
        [typeof(Guid)] = "uuid",
        [typeof(DateTime)] = "date-time",
        [typeof(DateTimeOffset)] = "date-time",
        [typeof(DateOnly)] = "date",
        [typeof(TimeOnly)] = "time",
        [typeof(Uri)] = "uri",
    };

    /// <summary>Numeric types whose schema has no bounds.</summary>
    public static IEnumerable<Type> Types => [.. Integers.Keys, .. Sizes.Keys];

    /// <summary>The least and the greatest value of an integer type; null: it is none.</summary>
    public static (BigInteger Low, BigInteger High)? Range(Type type) => Integers.TryGetValue(type, out (BigInteger, BigInteger) range) ? range : null;

    public static bool IsBytes(Type type) => type == typeof(byte[]) || type == typeof(Memory<byte>) || type == typeof(ReadOnlyMemory<byte>);

    public static JsonNode AddTo(AIJsonSchemaCreateContext context, JsonNode schema)
    {
        if (schema is JsonObject node && !node.ContainsKey("$ref"))
        {
            Type type = Nullable.GetUnderlyingType(context.TypeInfo.Type) ?? context.TypeInfo.Type;
            if (type.IsEnum && Has(node, "integer"))
            {
                AddValues(node, type);
            }
            else if (type.IsEnum && Has(node, "string") && !node.ContainsKey("enum") && !node.ContainsKey("pattern"))
            {
                // Flags by name.
                string names = string.Join('|', Enum.GetNames(type));
                node["pattern"] = $"^(?:{names})(?:, (?:{names}))*$";
            }
            else if (Integers.TryGetValue(type, out (BigInteger Low, BigInteger High) range))
            {
                AddBound(node, "minimum", "exclusiveMinimum", range.Low.ToString(CultureInfo.InvariantCulture));
                AddBound(node, "maximum", "exclusiveMaximum", range.High.ToString(CultureInfo.InvariantCulture));
            }
            else if (Sizes.TryGetValue(type, out string? size))
            {
                AddBound(node, "minimum", "exclusiveMinimum", $"-{size}");
                AddBound(node, "maximum", "exclusiveMaximum", size);
            }
            else if (IsBytes(type) && !node.ContainsKey("contentEncoding"))
            {
                node["contentEncoding"] = "base64";
            }
            else if (context.TypeInfo.Kind == JsonTypeInfoKind.Dictionary && context.TypeInfo.KeyType is { } key && !node.ContainsKey("propertyNames"))
            {
                AddKeys(node, key);
            }
        }

        return schema;
    }

    private static bool Has(JsonObject node, string type) => node["type"] switch
    {
        JsonArray types => types.Any(one => one?.GetValue<string>() == type),
        JsonValue one => one.GetValue<string>() == type,
        _ => false,
    };

    private static void AddBound(JsonObject node, string keyword, string exclusive, string value)
    {
        if (!node.ContainsKey(keyword) && !node.ContainsKey(exclusive) && (Has(node, "integer") || Has(node, "number")))
        {
            node[keyword] = JsonNode.Parse(value);
        }
    }

    // Named values, and null where that is allowed. Flags are any sum of theirs.
    private static void AddValues(JsonObject node, Type type)
    {
        if (type.IsDefined(typeof(FlagsAttribute), false))
        {
            (BigInteger low, BigInteger high) = Integers[Enum.GetUnderlyingType(type)];
            AddBound(node, "minimum", "exclusiveMinimum", low.ToString(CultureInfo.InvariantCulture));
            AddBound(node, "maximum", "exclusiveMaximum", high.ToString(CultureInfo.InvariantCulture));
        }
        else if (!node.ContainsKey("enum"))
        {
            string[] values = [.. Enum.GetValuesAsUnderlyingType(type).Cast<object>().Select(value => Convert.ToString(value, CultureInfo.InvariantCulture)!).Distinct(StringComparer.Ordinal)];
            node["enum"] = new JsonArray([.. values.Select(value => JsonNode.Parse(value)), .. Has(node, "null") ? new JsonNode?[] { null } : []]);
        }
    }

    private static void AddKeys(JsonObject node, Type key)
    {
        JsonObject? names = KeyFormats.TryGetValue(key, out string? format) ? new JsonObject { ["format"] = format }
            : Integers.TryGetValue(key, out (BigInteger Low, BigInteger High) range) ? new JsonObject { ["pattern"] = Digits(range.Low, range.High) }
            : key == typeof(bool) ? new JsonObject { ["enum"] = new JsonArray("true", "false") }
            : key == typeof(char) ? new JsonObject { ["minLength"] = 1, ["maxLength"] = 1 }
            : key == typeof(TimeSpan) ? new JsonObject { ["pattern"] = @"^-?(\d+\.)?\d{2}:\d{2}:\d{2}(\.\d{1,7})?$" }
            : key == typeof(Version) ? new JsonObject { ["pattern"] = @"^\d+(\.\d+){1,3}$" }
            : key == typeof(float) || key == typeof(double) || key == typeof(decimal) || key == typeof(Half) ? new JsonObject { ["pattern"] = @"^-?(?:0|[1-9]\d{0,3})(?:\.\d{1,6})?$" }
            : key.IsEnum ? new JsonObject { ["enum"] = new JsonArray([.. Enum.GetNames(key).Select(name => (JsonNode?)name)]) }
            : null;
        if (names is not null)
        {
            node["propertyNames"] = names;
        }
    }

    // Integers of fewer digits than the greatest has, and those of as many that begin with a smaller one. All of the small types.
    private static string Digits(BigInteger low, BigInteger high)
    {
        string sign = low.Sign < 0 ? "-?" : "";
        if (high <= byte.MaxValue)
        {
            return high == byte.MaxValue ? "^(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])$" : $"^(?:0|{sign}(?:12[0-7]|1[01][0-9]|[1-9][0-9]?))$";
        }

        string digits = high.ToString(CultureInfo.InvariantCulture);
        return $"^(?:0|{sign}[1-9][0-9]{{0,{digits.Length - 2}}}{(digits[0] > '1' ? $"|{sign}[1-{(char)(digits[0] - 1)}][0-9]{{{digits.Length - 1}}}" : "")})$";
    }
}
