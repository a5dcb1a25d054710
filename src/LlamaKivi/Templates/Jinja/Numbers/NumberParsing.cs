using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Parses numbers like Python's int() and float().</summary>
internal static class NumberParsing
{
    // Python rejects more digits too, because parsing takes quadratic time.
    private const int MaxDigits = 4300;

    /// <summary>Parses an integer.</summary>
    /// <param name="text">The text.</param>
    /// <param name="numberBase">2 to 36; 0: determined by a prefix.</param>
    /// <param name="value">The integer.</param>
    public static bool TryInteger(string text, long numberBase, out object value)
    {
        value = 0L;
        ReadOnlySpan<char> rest = PyText.Strip(text, null, true, true);
        bool negative = rest is ['-', ..];
        rest = rest is ['-' or '+', ..] ? rest[1..] : rest;
        int prefix = rest is ['0', 'x' or 'X', ..] ? 16 : rest is ['0', 'o' or 'O', ..] ? 8 : rest is ['0', 'b' or 'B', ..] ? 2 : 0;
        if (prefix > 0 && (numberBase == 0 || numberBase == prefix))
        {
            rest = rest[2..];
            rest = rest is ['_', ..] ? rest[1..] : rest;
        }
        else if (numberBase == 0 && rest is ['0', ..] && rest.ContainsAnyExcept('0', '_'))
        {
            return false;
        }

        int radix = numberBase != 0 ? (int)Math.Clamp(numberBase, 0, 99) : prefix > 0 ? prefix : 10;
        if (radix is < 2 or > 36 || rest.Length == 0 || rest.Length > MaxDigits)
        {
            return false;
        }

        BigInteger number = 0;
        long small = 0;
        bool digitBefore = false;
        for (int i = 0; i < rest.Length; i++)
        {
            if (rest[i] == '_')
            {
                if (!digitBefore)
                {
                    return false;
                }

                digitBefore = false;
                continue;
            }

            int digit = Digit(rest[i]);
            if (digit < 0 || digit >= radix)
            {
                return false;
            }

            digitBefore = true;
            if (i < 12)
            {
                small = small * radix + digit;
                number = i == 11 ? small : 0;
            }
            else
            {
                number = number * radix + digit;
            }
        }

        number = rest.Length <= 12 ? small : number;
        value = Arithmetic.Normal(negative ? -number : number);
        return digitBefore;
    }

    public static bool TryFloat(string text, out double value)
    {
        value = 0;
        ReadOnlySpan<char> rest = PyText.Strip(text, null, true, true);
        ReadOnlySpan<char> unsigned = rest is ['-' or '+', ..] ? rest[1..] : rest;
        double sign = rest is ['-', ..] ? -1 : 1;
        if (unsigned.Equals("inf", StringComparison.OrdinalIgnoreCase) || unsigned.Equals("infinity", StringComparison.OrdinalIgnoreCase))
        {
            value = sign * double.PositiveInfinity;
            return true;
        }

        if (unsigned.Equals("nan", StringComparison.OrdinalIgnoreCase))
        {
            value = double.NaN;
            return true;
        }

        // Single underscores between digits are allowed; otherwise .NET accepts the same numbers.
        Span<char> plain = rest.Length <= 512 ? stackalloc char[rest.Length] : new char[rest.Length];
        int length = 0;
        for (int i = 0; i < rest.Length; i++)
        {
            char c = rest[i];
            if (c == '_')
            {
                if (i == 0 || i + 1 == rest.Length || Digit(rest[i - 1]) is < 0 or > 9 || Digit(rest[i + 1]) is < 0 or > 9)
                {
                    return false;
                }

                continue;
            }

            int digit = Digit(c);
            if (digit is < 0 or > 9 && c is not ('.' or 'e' or 'E' or '+' or '-'))
            {
                return false;
            }

            plain[length++] = digit is >= 0 and <= 9 ? (char)('0' + digit) : c;
        }

        return double.TryParse(plain[..length], NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out value);
    }

    private static int Digit(char c) => c switch
    {
        >= '0' and <= '9' => c - '0',
        >= 'a' and <= 'z' => c - 'a' + 10,
        >= 'A' and <= 'Z' => c - 'A' + 10,
        > '\u007f' => CharUnicodeInfo.GetDecimalDigitValue(c),
        _ => -1,
    };
}
