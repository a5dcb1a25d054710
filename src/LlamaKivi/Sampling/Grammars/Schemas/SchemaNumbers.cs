using System.Globalization;
using System.Numerics;
using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Numbers: bounds, divisors and the range of the type.</summary>
internal sealed class SchemaNumbers(JsonSchemaGrammar grammar, SchemaSet set, bool isInteger)
{
    // Maximum number of decimals: those of a double, or of the bounds if they have more.
    private const int MaxFraction = 16;
    private const int MaxFractionOfBounds = 34;

    // The range of decimal.
    private static readonly Decimals MaxNumber = new(BigInteger.Pow(10, 28) - 1, 0);

    // Number formats of OpenAPI and its .NET writers.
    private static readonly Dictionary<string, (BigInteger Low, BigInteger High)> Formats = new(StringComparer.Ordinal)
    {
        ["int8"] = (sbyte.MinValue, sbyte.MaxValue),
        ["uint8"] = (byte.MinValue, byte.MaxValue),
        ["int16"] = (short.MinValue, short.MaxValue),
        ["uint16"] = (ushort.MinValue, ushort.MaxValue),
        ["int32"] = (int.MinValue, int.MaxValue),
        ["uint32"] = (uint.MinValue, uint.MaxValue),
        ["int64"] = (long.MinValue, long.MaxValue),
        ["uint64"] = (ulong.MinValue, ulong.MaxValue),
    };

    private string? _low;  // the keyword and its place
    private string? _high;

    public Gbnf Write()
    {
        (NumberBound? low, NumberBound? high) = Bounds();
        BigInteger? multiple = Multiple(out int scale);
        Decimals[] excluded = [.. SchemaValues.Excluded(set).Where(value => value.ValueKind == JsonValueKind.Number).Select(value => Decimals.Parse(value.GetRawText())).OfType<Decimals>()];
        if (low is null && high is null && multiple is null && excluded.Length == 0)
        {
            return isInteger ? grammar.Json.Integer : grammar.Json.Number;
        }

        (NumberBound lower, NumberBound upper) = isInteger ? WholeRange(low, high) : Range(low, high);
        int fraction = isInteger ? 0 : multiple is null ? Math.Clamp(Math.Max(lower.Value.Scale, upper.Value.Scale) + 1, MaxFraction, MaxFractionOfBounds) : scale;
        lower = lower with { Value = lower.Value.Rounded(MaxFractionOfBounds, up: true) };
        upper = upper with { Value = upper.Value.Rounded(MaxFractionOfBounds, up: false) };
        Automaton? automaton = NumberAutomaton.Between(lower, upper, fraction, multiple ?? 1);
        if (automaton is not null && excluded.Length > 0)
        {
            automaton = excluded.Aggregate(automaton, (rest, value) => rest?.Except(NumberAutomaton.Between(new NumberBound(value, false), new NumberBound(value, false), Math.Max(fraction, value.Scale), 1)!)!);
        }

        if (automaton is null)
        {
            SchemaPart part = set.With("multipleOf").FirstOrDefault(set.Parts[0]);
            throw part.Refuse("multipleOf", "with these bounds it takes too many states; use a smaller or rounder number, or closer bounds");
        }

        if (automaton.IsEmpty)
        {
            string[] why = [.. new[] { _low, _high, multiple is null ? null : $"multipleOf at {set.With("multipleOf").First().Path}" }.OfType<string>()];
            return grammar.Nothing(set, $"no number fits {string.Join(" and ", why)}");
        }

        return grammar.Json.Rules.Add(grammar.Json.Of(automaton, Gbnf.Class, $"{(isInteger ? "integer" : "number")} at {set.Path}"), set.Path);
    }

    /// <summary>Whether a number is within the bounds.</summary>
    public bool Fits(Decimals value)
    {
        (NumberBound? low, NumberBound? high) = Bounds();
        return (low is null || value.CompareTo(low.Value.Value) is var a && (a > 0 || (a == 0 && !low.Value.IsExclusive)))
            && (high is null || value.CompareTo(high.Value.Value) is var b && (b < 0 || (b == 0 && !high.Value.IsExclusive)))
            && (Multiple(out int scale) is not { } multiple || (value.Scale <= scale && value.Scaled(scale) % multiple == 0));
    }

    private (NumberBound? Low, NumberBound? High) Bounds()
    {
        NumberBound? low = null;
        NumberBound? high = null;
        foreach (SchemaPart part in set.Parts)
        {
            // In older drafts the exclusive keywords are flags of the others.
            Bound(part, "minimum", IsTrue(part, "exclusiveMinimum"), isLow: true);
            Bound(part, "maximum", IsTrue(part, "exclusiveMaximum"), isLow: false);
            Bound(part, "exclusiveMinimum", true, isLow: true);
            Bound(part, "exclusiveMaximum", true, isLow: false);
            if (isInteger && part.Has("format") && Formats.TryGetValue(part.Text("format"), out (BigInteger Low, BigInteger High) range))
            {
                Tighten(new NumberBound(new Decimals(range.Low, 0), false), isLow: true, $"format at {part.Path}");
                Tighten(new NumberBound(new Decimals(range.High, 0), false), isLow: false, $"format at {part.Path}");
            }
        }

        return (low, high);

        void Bound(SchemaPart part, string keyword, bool isExclusive, bool isLow)
        {
            if (!part.TryGet(keyword, out JsonElement value) || value.ValueKind is JsonValueKind.True or JsonValueKind.False)
            {
                return;
            }

            // [Range(typeof(decimal), "0.01", "99.99")] gives its bounds as texts.
            string text = value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();
            if (value.ValueKind is not (JsonValueKind.Number or JsonValueKind.String) || !IsNumber(text))
            {
                throw new GrammarException($"The schema's {keyword} at {part.Path} must be a number.");
            }

            if (Decimals.Parse(text) is { } bound)
            {
                Tighten(new NumberBound(bound, isExclusive), isLow, $"{keyword} {text} at {part.Path}");
            }
        }

        void Tighten(NumberBound bound, bool isLow, string name)
        {
            NumberBound? known = isLow ? low : high;
            int order = known is null ? 1 : isLow ? bound.Value.CompareTo(known.Value.Value) : known.Value.Value.CompareTo(bound.Value);
            if (order > 0 || (order == 0 && bound.IsExclusive))
            {
                (low, _low) = isLow ? (bound, name) : (low, _low);
                (high, _high) = isLow ? (high, _high) : (bound, name);
            }
        }
    }

    private static bool IsTrue(SchemaPart part, string keyword) => part.TryGet(keyword, out JsonElement value) && value.ValueKind == JsonValueKind.True;

    // An integer without bounds has 64 bits. Bounds beyond every integer type are ignored.
    private static (NumberBound, NumberBound) WholeRange(NumberBound? low, NumberBound? high)
    {
        BigInteger largest = (BigInteger)UInt128.MaxValue;
        BigInteger? least = low is { } l ? Whole(l, up: true) : null;
        BigInteger? most = high is { } h ? Whole(h, up: false) : null;
        least = least < -largest ? null : least;
        most = most > largest ? null : most;
        BigInteger lower = least ?? (most is { } top && top < long.MinValue ? -largest : long.MinValue);
        BigInteger upper = most ?? (least is { } bottom && bottom > long.MaxValue ? largest : long.MaxValue);
        return (new NumberBound(new Decimals(lower, 0), false), new NumberBound(new Decimals(upper, 0), false));

        static BigInteger Whole(NumberBound bound, bool up)
        {
            Decimals rounded = bound.Value.Rounded(0, up);
            return bound.IsExclusive && rounded.CompareTo(bound.Value) == 0 ? rounded.Value + (up ? 1 : -1) : rounded.Value;
        }
    }

    private static (NumberBound, NumberBound) Range(NumberBound? low, NumberBound? high)
    {
        NumberBound lower = low is { } l && (l.Value.CompareTo(MaxNumber.Negated) >= 0 || high?.Value.CompareTo(MaxNumber.Negated) < 0) ? l : new NumberBound(MaxNumber.Negated, false);
        NumberBound upper = high is { } h && (h.Value.CompareTo(MaxNumber) <= 0 || lower.Value.CompareTo(MaxNumber) > 0) ? h : new NumberBound(MaxNumber, false);
        return lower.Value.CompareTo(MaxNumber) > 0 && high is null ? (lower, new NumberBound(new Decimals(lower.Value.Scaled(lower.Value.Scale), 0), false)) : (lower, upper);
    }

    // A number ends in a digit; Infinity and NaN do not.
    private static bool IsNumber(string text) =>
        double.TryParse(text, NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out _) && char.IsAsciiDigit(text[^1]);

    // Divisor of the number times ten to the power of the scale.
    private BigInteger? Multiple(out int scale)
    {
        const int MaxScale = 30;
        scale = 0;
        BigInteger? all = null;
        foreach (SchemaPart part in set.With("multipleOf"))
        {
            JsonElement value = part.Element.GetProperty("multipleOf");
            if (value.ValueKind != JsonValueKind.Number || Decimals.Parse(value.GetRawText()) is not { Sign: > 0 } multiple)
            {
                throw new GrammarException($"The schema's multipleOf at {part.Path} must be a number above 0.");
            }

            if (multiple.Scale > MaxScale)
            {
                throw part.Refuse("multipleOf", $"it has more than {MaxScale} digits behind the point");
            }

            int common = Math.Max(scale, multiple.Scale);
            BigInteger before = (all ?? 1) * BigInteger.Pow(10, all is null ? 0 : common - scale);
            BigInteger one = multiple.Scaled(common);
            all = all is null ? one : before / BigInteger.GreatestCommonDivisor(before, one) * one;
            scale = common;
        }

        if (all is { } product && isInteger && scale > 0)
        {
            all = product / BigInteger.GreatestCommonDivisor(product, BigInteger.Pow(10, scale));
            scale = 0;
        }

        return all;
    }
}
