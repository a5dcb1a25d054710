using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods of numbers.</summary>
internal static class NumberMethods
{
    public static IEnumerable<Operation> OfInteger =>
    [
        new("bit_length", "/", (_, s, _) => BitLength(Arithmetic.Big(s!))),
        new("bit_count", "/", (_, s, _) => BitCount(BigInteger.Abs(Arithmetic.Big(s!)))),
        new("conjugate", "/", (_, s, _) => Arithmetic.Normal(Arithmetic.Big(s!))),
        new("as_integer_ratio", "/", (_, s, _) => new PyTuple([Arithmetic.Normal(Arithmetic.Big(s!)), 1L])),
    ];

    public static IEnumerable<Operation> OfFloat =>
    [
        new("is_integer", "/", (_, s, _) => double.IsFinite((double)s!) && (double)s == Math.Floor((double)s)),
        new("conjugate", "/", (_, s, _) => s),
        new("as_integer_ratio", "/", (_, s, _) => Ratio((double)s!)),
    ];

    private static long BitLength(BigInteger n) => n.IsZero ? 0L : (long)BigInteger.Abs(n).GetBitLength();

    private static long BitCount(BigInteger n)
    {
        long count = 0;
        foreach (byte b in n.ToByteArray())
        {
            count += BitOperations.PopCount(b);
        }

        return count;
    }

    private static PyTuple Ratio(double x)
    {
        if (!double.IsFinite(x))
        {
            throw new TemplateException($"{NumberText.Repr(x)} cannot be written as a ratio of integers.");
        }

        int shift = 0;
        for (; x != Math.Floor(x); shift++)
        {
            x *= 2;
        }

        return new PyTuple([Arithmetic.Normal(new BigInteger(x)), Arithmetic.Normal(BigInteger.One << shift)]);
    }
}
