using System.Text;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>
/// Converts tokens to text during generation. A character may span several tokens, so the bytes of an incomplete character
/// are held back. Invalid UTF-8 becomes U+FFFD. Not thread-safe.
/// </summary>
/// <param name="tokenizer">Tokenizer of the model that generates the tokens.</param>
public sealed partial class StreamingTokenDecoder(Tokenizer tokenizer)
{
    private readonly Tokenizer _tokenizer = tokenizer ?? throw new ArgumentNullException(nameof(tokenizer));
    private readonly Decoder _utf8 = Encoding.UTF8.GetDecoder();
    private readonly StringBuilder _text = new();
    private char[] _buffer = new char[64];

    /// <summary>Creates a decoder for the tokens of a context's model.</summary>
    public StreamingTokenDecoder(LLamaContext context)
        : this((context ?? throw new ArgumentNullException(nameof(context))).Weights.Tokenizer)
    {
    }

    /// <summary>Whether control tokens added later appear as their names. Default: they have no text.</summary>
    public bool DecodeSpecialTokens { get; set; }

    /// <summary>Number of UTF-16 units that <see cref="Read()"/> would return.</summary>
    public int AvailableCharacters => _text.Length;

    /// <summary>Adds a token.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain the id.</exception>
    public void Add(int token) => Append(_tokenizer.GetBytes(token, DecodeSpecialTokens).Span, flush: false);

    /// <summary>Adds a token.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain the token.</exception>
    public void Add(LLamaToken token) => Add((int)token);

    /// <summary>Adds tokens in order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain a token; the tokens before it are added.</exception>
    public void AddRange<T>(T tokens)
        where T : IEnumerable<LLamaToken>
    {
        foreach (LLamaToken token in tokens)
        {
            Add(token);
        }
    }

    /// <summary>Adds tokens in order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain a token; the tokens before it are added.</exception>
    public void AddRange(ReadOnlySpan<LLamaToken> tokens)
    {
        foreach (LLamaToken token in tokens)
        {
            Add(token);
        }
    }

    /// <summary>Moves the complete text to the end of a list of characters.</summary>
    public void Read(List<char> dest)
    {
        ArgumentNullException.ThrowIfNull(dest);
        dest.AddRange(Read());
    }

    /// <summary>Adds tokens in order.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain an id; the tokens before it are added.</exception>
    public void AddRange(ReadOnlySpan<int> tokens)
    {
        foreach (int token in tokens)
        {
            Add(token);
        }
    }

    /// <summary>Returns and removes the complete text; empty if there is none.</summary>
    public string Read()
    {
        string text = _text.ToString();
        _text.Clear();
        return text;
    }

    /// <summary>Returns and removes all text, with U+FFFD for the bytes of an incomplete character. The decoder stays usable.</summary>
    public string Flush()
    {
        Append([], flush: true);
        return Read();
    }

    /// <summary>Discards all text and held-back bytes.</summary>
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
