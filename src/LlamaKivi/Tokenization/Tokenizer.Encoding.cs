using System.Buffers;
using System.Text;
using System.Text.Unicode;
using LlamaKivi.Native;

namespace LlamaKivi.Tokenization;

public abstract partial class Tokenizer
{
    /// <summary>The ids of a text given as UTF-8. Bytes that are not UTF-8 become the tokens of these bytes, so that <see cref="DecodeBytes"/> gives them back.</summary>
    /// <param name="text">Any bytes. What has no token, not even of its bytes, is left out (byte-level BPE) or becomes the unknown token (SentencePiece).</param>
    /// <param name="addBos">Whether to put BOS first; without effect if the vocabulary has none.</param>
    /// <param name="parseSpecial">Whether names of control tokens in the text become these tokens.</param>
    /// <exception cref="UnsupportedModelException">The file has no vocabulary.</exception>
    public int[] Encode(ReadOnlySpan<byte> text, bool addBos, bool parseSpecial)
    {
        CheckTexts();
        List<int> ids = Begin(text.Length, addBos);
        char[] characters = ArrayPool<char>.Shared.Rent(Encoding.UTF8.GetMaxCharCount(text.Length));
        for (bool isStart = true; !text.IsEmpty; isStart = false)
        {
            OperationStatus status = Utf8.ToUtf16(text, characters, out int read, out int written, replaceInvalidSequences: false);
            if (written > 0)
            {
                EncodeText(new PromptText(new string(characters, 0, written)), parseSpecial, isStart, ids);
            }

            text = text[read..];
            if (status != OperationStatus.Done)
            {
                _ = Rune.DecodeFromUtf8(text, out _, out int broken);
                foreach (byte value in text[..broken])
                {
                    EncodeByte(value, ids);
                }

                text = text[broken..];
            }
        }

        ArrayPool<char>.Shared.Return(characters);
        return [.. ids];
    }

    /// <summary>The ids of a prompt. Special tokens are read only where it allows them; apart from that its text is one.</summary>
    internal int[] Encode(PromptText prompt, bool addBos, bool parseSpecial = true)
    {
        CheckTexts();
        List<int> ids = Begin(prompt.Value.Length, addBos);
        EncodeText(prompt, parseSpecial, isStart: true, ids);
        return [.. ids];
    }

    /// <summary>Adds the id of a byte that is no text.</summary>
    private protected abstract void EncodeByte(byte value, List<int> ids);

    private List<int> Begin(int length, bool addBos)
    {
        var ids = new List<int>((length / 3) + 1);
        if (addBos && BosId is int bos)
        {
            ids.Add(bos);
        }

        return ids;
    }

    private void EncodeText(PromptText prompt, bool parseSpecial, bool isStart, List<int> ids)
    {
        foreach ((int special, Range part) in SplitSpecials(prompt, parseSpecial))
        {
            if (special >= 0)
            {
                ids.Add(special);
            }
            else
            {
                EncodeFragment(prompt.Value[part], isStart, ids);
            }

            isStart = true;
        }
    }
}
