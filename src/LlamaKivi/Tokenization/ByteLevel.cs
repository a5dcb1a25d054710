using System.Text;

namespace LlamaKivi.Tokenization;

/// <summary>
/// GPT-2's mapping of bytes to characters in vocabularies: printable Latin-1 bytes map to themselves, the other 68 to
/// consecutive characters from U+0100 (a space is U+0120).
/// </summary>
internal static class ByteLevel
{
    private static readonly char[] Characters = MapBytes(); // [byte]
    private static readonly short[] Bytes = MapCharacters(); // [character up to U+0143], -1: not mapped

    public static char ToChar(byte value) => Characters[value];

    /// <summary>Bytes of a vocabulary entry; characters outside the mapping become their own UTF-8.</summary>
    public static byte[] ToBytes(string text)
    {
        var bytes = new List<byte>(text.Length);
        Span<byte> utf8 = stackalloc byte[4];
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (rune.Value < Bytes.Length && Bytes[rune.Value] >= 0)
            {
                bytes.Add((byte)Bytes[rune.Value]);
            }
            else
            {
                bytes.AddRange(utf8[..rune.EncodeToUtf8(utf8)]);
            }
        }

        return [.. bytes];
    }

    private static char[] MapBytes()
    {
        var characters = new char[256];
        int next = 0x100;
        for (int value = 0; value < characters.Length; value++)
        {
            bool printable = value is (>= 0x21 and <= 0x7E) or (>= 0xA1 and <= 0xAC) or (>= 0xAE and <= 0xFF);
            characters[value] = (char)(printable ? value : next++);
        }

        return characters;
    }

    private static short[] MapCharacters()
    {
        var bytes = new short[Characters.Max() + 1];
        Array.Fill(bytes, (short)-1);
        for (int value = 0; value < Characters.Length; value++)
        {
            bytes[Characters[value]] = (short)value;
        }

        return bytes;
    }
}
