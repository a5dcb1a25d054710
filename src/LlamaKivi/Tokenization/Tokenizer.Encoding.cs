using System.Buffers;
using System.Text;
using System.Text.Unicode;
using LlamaKivi.Native;

namespace LlamaKivi.Tokenization;

public abstract partial class Tokenizer
{
    /// <summary>Encodes UTF-8 text. Invalid UTF-8 becomes byte tokens, so that <see cref="DecodeBytes"/> restores it.</summary>
    /// <param name="text">Any bytes. Text without a token, even for its bytes, is dropped (byte-level BPE) or becomes the unknown token (SentencePiece).</param>
    /// <param name="addBos">Whether to prepend BOS; ignored if the vocabulary has none.</param>
    /// <param name="parseSpecial">Whether names of control tokens in the text are parsed as those tokens.</param>
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

    /// <summary>Encodes a prompt. Special tokens are matched only where the prompt allows them; the rest of the text is encoded as one.</summary>
    internal int[] Encode(PromptText prompt, bool addBos, bool parseSpecial = true)
    {
        CheckTexts();
        List<int> ids = Begin(prompt.Value.Length, addBos);
        EncodeText(prompt, parseSpecial, isStart: true, ids);
        return [.. ids];
    }

    /// <summary>Appends the id of a byte that is not valid UTF-8.</summary>
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
