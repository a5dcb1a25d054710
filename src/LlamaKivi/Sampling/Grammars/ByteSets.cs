namespace LlamaKivi.Sampling.Grammars;

/// <summary>A set of bytes.</summary>
internal record struct UInt256
{
    private ulong _a;
    private ulong _b;
    private ulong _c;
    private ulong _d;

    public readonly bool IsEmpty => (_a | _b | _c | _d) == 0;

    public readonly bool Contains(byte value) => ((value >> 6) switch { 0 => _a, 1 => _b, 2 => _c, _ => _d } >> (value & 63) & 1) != 0;

    public void Add(byte low, byte high)
    {
        for (int value = low; value <= high; value++)
        {
            ulong bit = 1ul << (value & 63);
            switch (value >> 6)
            {
                case 0:
                    _a |= bit;
                    break;
                case 1:
                    _b |= bit;
                    break;
                case 2:
                    _c |= bit;
                    break;
                default:
                    _d |= bit;
                    break;
            }
        }
    }
}

/// <summary>Converts ranges of code points to ranges of UTF-8 bytes.</summary>
internal static class Utf8Ranges
{
    private static readonly (int Low, int High)[] Lengths = [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)];

    /// <summary>Sequences of byte ranges that match the code points low to high, without surrogates.</summary>
    public static IEnumerable<(byte Low, byte High)[]> Split(int low, int high)
    {
        foreach ((int first, int last) in Lengths)
        {
            int from = Math.Max(low, first);
            int to = Math.Min(high, last);
            if (from <= to)
            {
                foreach ((byte, byte)[] part in SameLength(Encode(from), Encode(to)))
                {
                    yield return part;
                }
            }
        }
    }

    private static byte[] Encode(int value) => System.Text.Encoding.UTF8.GetBytes(char.ConvertFromUtf32(value));

    // Both ends have the same length. If the first bytes differ, the middle accepts all continuation bytes and the ends are split further.
    private static IEnumerable<(byte, byte)[]> SameLength(byte[] low, byte[] high)
    {
        if (low.Length == 1)
        {
            yield return [(low[0], high[0])];
            yield break;
        }

        byte[] least = [.. low.Skip(1).Select(_ => (byte)0x80)];
        byte[] most = [.. low.Skip(1).Select(_ => (byte)0xBF)];
        if (low[0] == high[0])
        {
            foreach ((byte, byte)[] rest in SameLength(low[1..], high[1..]))
            {
                yield return [(low[0], low[0]), .. rest];
            }

            yield break;
        }

        int from = low[0];
        int to = high[0];
        if (!low.AsSpan(1).SequenceEqual(least))
        {
            foreach ((byte, byte)[] rest in SameLength(low[1..], most))
            {
                yield return [(low[0], low[0]), .. rest];
            }

            from++;
        }

        bool wholeEnd = high.AsSpan(1).SequenceEqual(most);
        int lastWhole = wholeEnd ? to : to - 1;
        if (from <= lastWhole)
        {
            yield return [((byte)from, (byte)lastWhole), .. most.Select((top, i) => (least[i], top))];
        }

        if (!wholeEnd)
        {
            foreach ((byte, byte)[] rest in SameLength(least, high[1..]))
            {
                yield return [(high[0], high[0]), .. rest];
            }
        }
    }
}
