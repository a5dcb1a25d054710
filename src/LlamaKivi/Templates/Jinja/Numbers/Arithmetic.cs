using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Arithmetic of Python's numbers: integers of any size, floats, and booleans as 0 and 1.</summary>
internal static class Arithmetic
{
    // 39,000 digits. Python converts at most 4,300 to text.
    private const long MaxBits = 1 << 17;

    /// <summary>Normalizes an integer: to a long if it fits.</summary>
    public static object Normal(BigInteger n) => n >= long.MinValue && n <= long.MaxValue ? (object)(long)n : n;

    public static BigInteger Big(object value) => value switch
    {
        bool flag => flag ? 1 : 0,
        long n => n,
        _ => (BigInteger)value,
    };

    /// <summary>Converts an integer to a size, position or count; larger values are clamped.</summary>
    public static long Clamped(object? value, string what) => value switch
    {
        long n => n,
        bool flag => flag ? 1 : 0,
        BigInteger n => n.Sign * long.MaxValue,
        _ => throw Types.Error(value, $"{what} must be an integer, not a {Types.Name(value)}."),
    };

    /// <summary>Converts a number to a float.</summary>
    public static double Real(object value) => value switch
    {
        double x => x,
        bool flag => flag ? 1 : 0,
        long n => n,
        BigInteger n => ToDouble(n) is var x && double.IsFinite(x) ? x : throw new TemplateException("The integer is too large for a float."),
        _ => throw Types.Error(value, $"A {Types.Name(value)} is not a number."),
    };

    public static bool AreEqual(object? a, object? b)
    {
        if (a is double x)
        {
            return b is double y ? x == y : IsSame(x, b!);
        }

        return b is double z ? IsSame(z, a!) : a is BigInteger || b is BigInteger ? Big(a!) == Big(b!) : Small(a!) == Small(b!);
    }

    /// <summary>Compares two numbers; null: one of them is NaN.</summary>
    public static int? Compare(object a, object b)
    {
        if (a is double x)
        {
            return b is double y ? (double.IsNaN(x) || double.IsNaN(y) ? null : x.CompareTo(y)) : -Compare(b, x);
        }

        return b is double z ? Compare(a, z) : a is BigInteger || b is BigInteger ? Big(a).CompareTo(Big(b)) : Small(a).CompareTo(Small(b));
    }

    public static object Add(Budget budget, object a, object b) =>
        a is double || b is double ? Real(a) + Real(b)
        : a is BigInteger || b is BigInteger ? Bounded(budget, Big(a) + Big(b)) : Fit((Int128)Small(a) + Small(b));

    public static object Subtract(Budget budget, object a, object b) =>
        a is double || b is double ? Real(a) - Real(b)
        : a is BigInteger || b is BigInteger ? Bounded(budget, Big(a) - Big(b)) : Fit((Int128)Small(a) - Small(b));

    public static object Multiply(Budget budget, object a, object b) =>
        a is double || b is double ? Real(a) * Real(b)
        : a is BigInteger || b is BigInteger ? Bounded(budget, Big(a) * Big(b)) : Fit((Int128)Small(a) * Small(b));

    public static object Divide(object a, object b)
    {
        if (a is double || b is double)
        {
            double divisor = Real(b);
            return divisor == 0 ? throw DividedByZero() : Real(a) / divisor;
        }

        (BigInteger x, BigInteger y) = (Big(a), Big(b));
        if (y.IsZero)
        {
            throw DividedByZero();
        }

        if (x.IsZero)
        {
            return y.Sign < 0 ? -0.0 : 0.0;
        }

        // Wide enough for a quotient of 66 bits; the last bit tells whether there is a remainder.
        int shift = (int)Math.Max(0, 66 - ((long)x.GetBitLength() - (long)y.GetBitLength()));
        BigInteger quotient = BigInteger.DivRem(x << shift, y, out BigInteger rest);
        double result = ScaleB(ToDouble(rest.IsZero ? quotient : quotient | 1), -shift);
        return double.IsFinite(result) ? result : throw new TemplateException("The quotient is too large for a float.");
    }

    public static object FloorDivide(Budget budget, object a, object b) => a is double || b is double ? DivMod(Real(a), Real(b)).Quotient : DivMod(budget, a, b).Quotient;

    public static object Modulo(Budget budget, object a, object b) => a is double || b is double ? DivMod(Real(a), Real(b)).Remainder : DivMod(budget, a, b).Remainder;

    public static object Power(Budget budget, object a, object b)
    {
        if (a is double || b is double || Big(b).Sign < 0)
        {
            (double x, double y) = (Real(a), Real(b));
            if (x == 0 && y < 0)
            {
                throw new TemplateException("0 cannot be raised to a negative power.");
            }

            if (x < 0 && double.IsFinite(x) && double.IsFinite(y) && y != Math.Floor(y))
            {
                throw new TemplateException("A fractional power of a negative number is complex, and complex numbers are not supported.");
            }

            double power = x == 1 || y == 0 ? 1 : Math.Pow(x, y);
            return double.IsInfinity(power) && double.IsFinite(x) && double.IsFinite(y) ? throw new TemplateException("The power is too large for a float.") : power;
        }

        (BigInteger number, BigInteger exponent) = (Big(a), Big(b));
        if (exponent.IsZero || number.IsOne)
        {
            return 1L;
        }

        if (number.IsZero || number == BigInteger.MinusOne)
        {
            return number.IsZero ? 0L : exponent.IsEven ? 1L : -1L;
        }

        if (exponent > MaxBits || (long)number.GetBitLength() * (long)exponent > MaxBits + 64)
        {
            throw TooLarge();
        }

        return Bounded(budget, BigInteger.Pow(number, (int)exponent));
    }

    public static object Negate(object value) => value switch
    {
        double x => -x,
        BigInteger n => Normal(-n),
        _ => Fit(-(Int128)Small(value)),
    };

    public static object Absolute(object? value) => value switch
    {
        double x => Math.Abs(x),
        BigInteger n => Normal(BigInteger.Abs(n)),
        bool or long => Fit(Int128.Abs(Small(value))),
        _ => throw Types.Error(value, $"A {Types.Name(value)} has no absolute value."),
    };

    /// <summary>Truncates a float to an integer; null: infinity or NaN.</summary>
    public static object? Truncated(double x) => double.IsFinite(x) ? Normal(new BigInteger(Math.Truncate(x))) : null;

    /// <summary>The nearest float, ties to even. .NET's conversion truncates.</summary>
    public static double ToDouble(BigInteger n)
    {
        BigInteger magnitude = BigInteger.Abs(n);
        int extra = (int)Math.Max(0, (long)magnitude.GetBitLength() - 64);
        var top = (ulong)(magnitude >> extra);
        if (extra > 0 && (magnitude & ((BigInteger.One << extra) - 1)) != 0)
        {
            top |= 1;
        }

        return n.Sign * ScaleB(top, extra);
    }

    public static TemplateException TooLarge() => new($"The template computes an integer of more than {MaxBits} bits; it was stopped.");

    // Scales in two steps, because one step could overflow the exponent.
    private static double ScaleB(double x, int exponent) => exponent < -1000 ? Math.ScaleB(Math.ScaleB(x, -500), exponent + 500) : Math.ScaleB(x, exponent);

    private static long Small(object value) => value is long n ? n : (bool)value ? 1 : 0;

#pragma warning disable CA1859 // the type varies: a long if the number fits
    private static object Fit(Int128 n) => n >= long.MinValue && n <= long.MaxValue ? (object)(long)n : (BigInteger)n;
#pragma warning restore CA1859

    private static object Bounded(Budget budget, BigInteger n)
    {
        long bits = n.GetBitLength();
        budget.Step(1 + bits * bits / (1 << 20));
        budget.Run(bits);
        return bits > MaxBits ? throw TooLarge() : Normal(n);
    }

    private static bool IsSame(double x, object integer) => x == Math.Floor(x) && double.IsFinite(x) && (integer is not BigInteger && Math.Abs(x) < 9e18 ? (long)x == Small(integer) : new BigInteger(x) == Big(integer));

    private static int? Compare(object integer, double x)
    {
        if (double.IsNaN(x))
        {
            return null;
        }

        if (double.IsInfinity(x))
        {
            return x > 0 ? -1 : 1;
        }

        double floor = Math.Floor(x);
        int order = Big(integer).CompareTo(new BigInteger(floor));
        return order == 0 && x > floor ? -1 : order;
    }

    private static (object Quotient, object Remainder) DivMod(Budget budget, object a, object b)
    {
        if (a is not BigInteger && b is not BigInteger)
        {
            (Int128 m, Int128 n) = (Small(a), Small(b));
            if (n == 0)
            {
                throw DividedByZero();
            }

            (Int128 quotient, Int128 remainder) = Int128.DivRem(m, n);
            return remainder != 0 && remainder < 0 != n < 0 ? (Fit(quotient - 1), Fit(remainder + n)) : (Fit(quotient), Fit(remainder));
        }

        BigInteger divisor = Big(b);
        if (divisor.IsZero)
        {
            throw DividedByZero();
        }

        BigInteger whole = BigInteger.DivRem(Big(a), divisor, out BigInteger rest);
        bool lower = !rest.IsZero && rest.Sign != divisor.Sign;
        return (Bounded(budget, lower ? whole - 1 : whole), Bounded(budget, lower ? rest + divisor : rest));
    }

    private static (double Quotient, double Remainder) DivMod(double x, double y)
    {
        if (y == 0)
        {
            throw DividedByZero();
        }

        double rest = x % y;
        double quotient = (x - rest) / y;
        if (rest == 0)
        {
            rest = Math.CopySign(0, y);
        }
        else if (rest < 0 != y < 0)
        {
            rest += y;
            quotient -= 1;
        }

        if (quotient == 0)
        {
            return (Math.CopySign(0, x / y), rest);
        }

        double floor = Math.Floor(quotient);
        return (quotient - floor > 0.5 ? floor + 1 : floor, rest);
    }

    private static TemplateException DividedByZero() => new("Division by zero.");
}
