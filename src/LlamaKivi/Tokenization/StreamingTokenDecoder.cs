using System.Text;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>
/// Turns tokens into text as they are generated. A character may be spread over several tokens: only whole characters
/// are read, the bytes of an unfinished one are held. Bytes that are not UTF-8 become U+FFFD. Not thread-safe.
/// </summary>
/// <param name="tokenizer">The tokenizer of the model that generates the tokens.</param>
public sealed partial class StreamingTokenDecoder(Tokenizer tokenizer)
{
    private readonly Tokenizer _tokenizer = tokenizer ?? throw new ArgumentNullException(nameof(tokenizer));
    private readonly Decoder _utf8 = Encoding.UTF8.GetDecoder();
    private readonly StringBuilder _text = new();
    private char[] _buffer = new char[64];

    /// <summary>Decodes the tokens of a model.</summary>
    /// <param name="encoding">Without effect: models read and write UTF-8.</param>
    /// <param name="weights">The model.</param>
    public StreamingTokenDecoder(Encoding encoding, LLamaWeights weights)
        : this((weights ?? throw new ArgumentNullException(nameof(weights))).Tokenizer)
    {
    }

    /// <summary>Decodes the tokens of a context's model.</summary>
    public StreamingTokenDecoder(LLamaContext context)
        : this((context ?? throw new ArgumentNullException(nameof(context))).Weights.Tokenizer)
    {
    }

    /// <summary>Whether control tokens added from now on appear as their names; by default they have no text.</summary>
    public bool DecodeSpecialTokens { get; set; }

    /// <summary>UTF-16 characters that <see cref="Read()"/> would return.</summary>
    public int AvailableCharacters => _text.Length;

    /// <summary>Adds a token.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such id.</exception>
    public void Add(int token) => Append(_tokenizer.GetBytes(token, DecodeSpecialTokens).Span, flush: false);

    /// <summary>Adds a token.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such token.</exception>
    public void Add(LLamaToken token) => Add((int)token);

    /// <summary>Adds tokens in order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such token; the tokens before it were added.</exception>
    public void AddRange<T>(T tokens)
        where T : IEnumerable<LLamaToken>
    {
        foreach (LLamaToken token in tokens)
        {
            Add(token);
        }
    }

    /// <summary>Adds tokens in order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such token; the tokens before it were added.</exception>
    public void AddRange(ReadOnlySpan<LLamaToken> tokens)
    {
        foreach (LLamaToken token in tokens)
        {
            Add(token);
        }
    }

    /// <summary>Takes the text that is complete so far, as characters at the end of a list.</summary>
    public void Read(List<char> dest)
    {
        ArgumentNullException.ThrowIfNull(dest);
        dest.AddRange(Read());
    }

    /// <summary>Adds tokens in order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such id; the tokens before it were added.</exception>
    public void AddRange(ReadOnlySpan<int> tokens)
    {
        foreach (int token in tokens)
        {
            Add(token);
        }
    }

    /// <summary>Takes the text that is complete so far; empty if there is none.</summary>
    public string Read()
    {
        string text = _text.ToString();
        _text.Clear();
        return text;
    }

    /// <summary>Takes all text, with U+FFFD for the bytes of an unfinished character. The decoder may be used again.</summary>
    public string Flush()
    {
        Append([], flush: true);
        return Read();
    }

    /// <summary>Forgets all text and all held bytes.</summary>
    public void Reset()
    {
        _utf8.Reset();
        _text.Clear();
    }

    private void Append(ReadOnlySpan<byte> bytes, bool flush)
    {
        int most = Encoding.UTF8.GetMaxCharCount(bytes.Length);
        if (_buffer.Length < most)
        {
            _buffer = new char[most];
        }

        _text.Append(_buffer, 0, _utf8.GetChars(bytes, _buffer, flush));
    }
}
