using System.Globalization;
using System.Numerics;
using System.Text;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Formats numbers like Python: repr() and the types of its format specifications, rounded half to even on the exact binary value.</summary>
internal static class NumberText
{
    public const int MaxPrecision = 10_000;

    private const int MaxDigits = 4300;

    /// <summary>The shortest digits that parse to the same float.</summary>
    public static string Repr(double x)
    {
        if (!double.IsFinite(x))
        {
            return double.IsNaN(x) ? "nan" : x > 0 ? "inf" : "-inf";
        }

        if (x == 0)
        {
            return double.IsNegative(x) ? "-0.0" : "0.0";
        }

        (string digits, int exponent) = Shortest(x);
        string sign = x < 0 ? "-" : "";
        if (exponent is < -4 or >= 16)
        {
            return $"{sign}{digits[0]}{(digits.Length > 1 ? "." + digits[1..] : "")}{Exponent('e', exponent)}";
        }

        return exponent < 0 ? sign + "0." + new string('0', -exponent - 1) + digits
            : digits.Length > exponent + 1 ? sign + digits[..(exponent + 1)] + "." + digits[(exponent + 1)..]
            : sign + digits.PadRight(exponent + 1, '0') + ".0";
    }

    public static string Repr(BigInteger n) =>
        n.GetBitLength() > MaxDigits * 3.33 ? throw new TemplateException($"An integer of more than {MaxDigits} digits cannot be converted to text.") : n.ToString(CultureInfo.InvariantCulture);

    /// <summary>Fixed-point notation with a number of decimals, without a sign.</summary>
    public static string Fixed(double x, int precision)
    {
        string digits = Scaled(x, Checked(precision)).ToString(CultureInfo.InvariantCulture).PadLeft(precision + 1, '0');
        return precision == 0 ? digits : digits[..^precision] + "." + digits[^precision..];
    }

    /// <summary>Exponential notation, without a sign.</summary>
    public static string Scientific(double x, int precision, char e)
    {
        (string digits, int exponent) = Significant(x, Checked(precision) + 1);
        return digits[..1] + (precision > 0 ? "." + digits[1..] : "") + Exponent(e, exponent);
    }

    /// <summary>The notation of %g: significant digits, with an exponent for large and small numbers.</summary>
    /// <param name="x">The number.</param>
    /// <param name="precision">Significant digits.</param>
    /// <param name="e">The letter of the exponent.</param>
    /// <param name="keepZeros">Whether trailing zeros are kept.</param>
    /// <param name="always">Exponent at which the notation changes; formats like repr() change one digit earlier.</param>
    public static string General(double x, int precision, char e, bool keepZeros, int? always = null)
    {
        precision = Math.Max(Checked(precision), 1);
        (string digits, int exponent) = x == 0 ? (new string('0', precision), 0) : Significant(x, precision);
        bool scientific = exponent < -4 || exponent >= (always ?? precision);
        string text = scientific
            ? digits[..1] + "." + digits[1..]
            : exponent < 0 ? "0." + new string('0', -exponent - 1) + digits
            : exponent + 1 >= digits.Length ? digits.PadRight(exponent + 1, '0') + "." : digits[..(exponent + 1)] + "." + digits[(exponent + 1)..];
        text = keepZeros ? text : text.TrimEnd('0').TrimEnd('.');
        return scientific ? text + Exponent(e, exponent) : text;
    }

    /// <summary>round() to a number of decimals, which may be negative.</summary>
    public static double Round(double x, long digits)
    {
        // Outside this range a float is unchanged, or rounds to zero.
        if (!double.IsFinite(x) || x == 0 || digits > 340)
        {
            return x;
        }

        if (digits < -310)
        {
            return Math.CopySign(0, x);
        }

        BigInteger scaled = Scaled(x, (int)digits);
        string text = scaled.ToString(CultureInfo.InvariantCulture) + "e" + (-digits).ToString(CultureInfo.InvariantCulture);
        double rounded = Math.CopySign(double.Parse(text, CultureInfo.InvariantCulture), x);
        return double.IsFinite(rounded) ? rounded : throw new TemplateException("The rounded number is too large for a float.");
    }

    /// <summary>round() of an integer: half to even.</summary>
    public static object Round(object integer, long digits)
    {
        if (digits >= 0)
        {
            return integer is bool flag ? flag ? 1L : 0L : integer;
        }

        BigInteger n = Arithmetic.Big(integer);
        if (-digits > MaxDigits * 2)
        {
            return 0L;
        }

        BigInteger unit = BigInteger.Pow(10, (int)-digits);
        return Arithmetic.Normal(n.Sign * Divided(BigInteger.Abs(n), unit) * unit);
    }

    /// <summary>The nearest integer, ties to even.</summary>
    public static object Round(double x) =>
        double.IsFinite(x) ? Arithmetic.Normal(new BigInteger(Math.Round(x, MidpointRounding.ToEven))) : throw new TemplateException($"{Repr(x)} cannot be rounded to an integer.");

    private static int Checked(int precision) => precision > MaxPrecision ? throw new TemplateException($"A precision of {precision} is too large; the maximum is {MaxPrecision}.") : precision;

    private static string Exponent(char e, int exponent) => $"{e}{(exponent < 0 ? '-' : '+')}{Math.Abs(exponent):00}";

    private static (string Digits, int Exponent) Shortest(double x)
    {
        string text = Math.Abs(x).ToString("R", CultureInfo.InvariantCulture);
        int e = text.IndexOf('E', StringComparison.Ordinal);
        int exponent = e < 0 ? 0 : int.Parse(text.AsSpan(e + 1), CultureInfo.InvariantCulture);
        string mantissa = e < 0 ? text : text[..e];
        int point = mantissa.IndexOf('.', StringComparison.Ordinal);
        exponent += (point < 0 ? mantissa.Length : point) - 1;
        string digits = mantissa.Replace(".", "", StringComparison.Ordinal);
        int zeros = digits.Length - digits.TrimStart('0').Length;
        digits = digits[zeros..].TrimEnd('0');
        return (digits.Length == 0 ? "0" : digits, exponent - zeros);
    }

    private static (string Digits, int Exponent) Significant(double x, int count)
    {
        if (x == 0)
        {
            return (new string('0', count), 0);
        }

        int exponent = (int)Math.Floor(Math.Log10(Math.Abs(x)));
        for (int guess = exponent; ; guess--)
        {
            string digits = Scaled(x, count - 1 - guess).ToString(CultureInfo.InvariantCulture);
            if (digits.Length == count && digits[0] != '0')
            {
                return (digits, guess);
            }

            if (digits.Length > count)
            {
                return (digits[..count], guess + 1);  // rounded up to the next power of ten
            }
        }
    }

    // |x| times a power of ten, half to even.
    private static BigInteger Scaled(double x, int power)
    {
        long bits = BitConverter.DoubleToInt64Bits(x);
        int exponent = (int)((bits >> 52) & 0x7ff);
        BigInteger mantissa = (bits & ((1L << 52) - 1)) | (exponent == 0 ? 0 : 1L << 52);
        exponent = Math.Max(exponent, 1) - 1075;
        BigInteger numerator = mantissa;
        BigInteger denominator = 1;
        if (exponent >= 0)
        {
            numerator <<= exponent;
        }
        else
        {
            denominator <<= -exponent;
        }

        if (power >= 0)
        {
            numerator *= BigInteger.Pow(10, power);
        }
        else
        {
            denominator *= BigInteger.Pow(10, -power);
        }

        return Divided(numerator, denominator);
    }

    private static BigInteger Divided(BigInteger numerator, BigInteger denominator)
    {
        BigInteger quotient = BigInteger.DivRem(numerator, denominator, out BigInteger rest);
        int half = (rest * 2).CompareTo(denominator);
        return half > 0 || (half == 0 && !quotient.IsEven) ? quotient + 1 : quotient;
    }
}
