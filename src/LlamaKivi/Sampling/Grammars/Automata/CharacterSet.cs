using System.Globalization;
using System.Text;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A set of code points, as sorted ranges that do not touch. Immutable.</summary>
internal readonly struct CharacterSet : IEquatable<CharacterSet>
{
    /// <summary>All characters, without surrogates.</summary>
    public static readonly CharacterSet All = Of((0, 0xD7FF), (0xE000, 0x10FFFF));

    /// <summary>The characters of one UTF-16 unit.</summary>
    public static readonly CharacterSet Basic = Of((0, 0xD7FF), (0xE000, 0xFFFF));

    private readonly (int Low, int High)[]? _ranges;

    private CharacterSet((int, int)[] ranges) => _ranges = ranges;

    public ReadOnlySpan<(int Low, int High)> Ranges => _ranges;

    public bool IsEmpty => Ranges.IsEmpty;

    public static CharacterSet Of(params IEnumerable<(int Low, int High)> ranges)
    {
        var merged = new List<(int Low, int High)>();
        foreach ((int low, int high) in ranges.Order())
        {
            if (merged.Count > 0 && low <= merged[^1].High + 1)
            {
                merged[^1] = (merged[^1].Low, Math.Max(merged[^1].High, high));
            }
            else
            {
                merged.Add((low, high));
            }
        }

        return new CharacterSet([.. merged]);
    }

    /// <summary>The characters of a text.</summary>
    public static CharacterSet OfText(string text) => Of(text.EnumerateRunes().Select(rune => (rune.Value, rune.Value)));

    public CharacterSet Union(CharacterSet other) => Of([.. Ranges, .. other.Ranges]);

    /// <summary>The complement of the set, without surrogates.</summary>
    public CharacterSet Complement()
    {
        var rest = new List<(int, int)>();
        int next = 0;
        foreach ((int low, int high) in Ranges)
        {
            if (low > next)
            {
                rest.Add((next, low - 1));
            }

            next = high + 1;
        }

        if (next <= 0x10FFFF)
        {
            rest.Add((next, 0x10FFFF));
        }

        return new CharacterSet([.. rest]).Intersect(All);
    }

    public CharacterSet Intersect(CharacterSet other)
    {
        var both = new List<(int, int)>();
        ReadOnlySpan<(int Low, int High)> a = Ranges;
        ReadOnlySpan<(int Low, int High)> b = other.Ranges;
        for (int i = 0, j = 0; i < a.Length && j < b.Length;)
        {
            int low = Math.Max(a[i].Low, b[j].Low);
            int high = Math.Min(a[i].High, b[j].High);
            if (low <= high)
            {
                both.Add((low, high));
            }

            if (a[i].High < b[j].High)
            {
                i++;
            }
            else
            {
                j++;
            }
        }

        return new CharacterSet([.. both]);
    }

    public CharacterSet Except(CharacterSet other) => Intersect(other.Complement());

    public bool Contains(int value)
    {
        foreach ((int low, int high) in Ranges)
        {
            if (value >= low && value <= high)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Appends the set as a GBNF class.</summary>
    public void Write(StringBuilder to)
    {
        to.Append('[');
        foreach ((int low, int high) in Ranges)
        {
            Write(to, low);
            if (high > low)
            {
                to.Append(high > low + 1 ? "-" : "");
                Write(to, high);
            }
        }

        to.Append(']');
    }

    private static void Write(StringBuilder to, int value)
    {
        if (value < 128 && char.IsAsciiLetterOrDigit((char)value))
        {
            to.Append((char)value);
        }
        else
        {
            to.Append(value < 256 ? "\\x" : value < 65536 ? "\\u" : "\\U").Append(value.ToString(value < 256 ? "X2" : value < 65536 ? "X4" : "X8", CultureInfo.InvariantCulture));
        }
    }

    public bool Equals(CharacterSet other) => Ranges.SequenceEqual(other.Ranges);

    public override bool Equals(object? obj) => obj is CharacterSet other && Equals(other);

    public override int GetHashCode()
    {
        var hash = new HashCode();
        foreach ((int low, int high) in Ranges)
        {
            hash.Add(low);
            hash.Add(high);
        }

        return hash.ToHashCode();
    }
}
