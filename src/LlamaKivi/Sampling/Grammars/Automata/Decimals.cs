using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A decimal number of any size.</summary>
/// <param name="Value">The number times ten to the power of the scale.</param>
/// <param name="Scale">Number of decimals.</param>
internal readonly record struct Decimals(BigInteger Value, int Scale) : IComparable<Decimals>
{
    private const int MaxExponent = 400;

    public static Decimals Zero { get; } = new(BigInteger.Zero, 0);

    public int Sign => Value.Sign;

    public Decimals Negated => this with { Value = -Value };

    /// <summary>Parses a JSON number; null: the exponent is out of range.</summary>
    public static Decimals? Parse(string text)
    {
        int e = text.AsSpan().IndexOfAny('e', 'E');
        string digits = e < 0 ? text : text[..e];
        int exponent = 0;
        if (e >= 0 && (!int.TryParse(text.AsSpan(e + 1), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out exponent) || Math.Abs(exponent) > MaxExponent))
        {
            return null;
        }

        int point = digits.IndexOf('.', StringComparison.Ordinal);
        int scale = (point < 0 ? 0 : digits.Length - point - 1) - exponent;
        var value = BigInteger.Parse(digits.Replace(".", "", StringComparison.Ordinal), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
        return scale < 0 ? new Decimals(value * BigInteger.Pow(10, -scale), 0) : new Decimals(value, scale).Reduced();
    }

    /// <summary>Rounds up or down to a number of decimals.</summary>
    public Decimals Rounded(int scale, bool up)
    {
        if (Scale <= scale)
        {
            return this;
        }

        var quotient = BigInteger.DivRem(Value, BigInteger.Pow(10, Scale - scale), out BigInteger rest);
        return new Decimals(quotient + (rest.IsZero || rest.Sign > 0 != up ? 0 : up ? 1 : -1), scale);
    }

    /// <summary>The number times ten to the power of a scale that is large enough to leave no fraction.</summary>
    public BigInteger Scaled(int scale) => Value * BigInteger.Pow(10, scale - Scale);

    public int CompareTo(Decimals other)
    {
        int scale = Math.Max(Scale, other.Scale);
        return Scaled(scale).CompareTo(other.Scaled(scale));
    }

    private Decimals Reduced()
    {
        (BigInteger value, int scale) = (Value, Scale);
        while (scale > 0 && value % 10 == 0)
        {
            (value, scale) = (value / 10, scale - 1);
        }

        return new Decimals(value, scale);
    }
}
