using LlamaKivi.Abstractions;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>Text of generated tokens, up to the token that ends it. Not thread-safe.</summary>
/// <param name="tokenizer">Tokenizer of the model.</param>
/// <param name="options">Inference parameters; read at every token.</param>
internal sealed class GeneratedText(Tokenizer tokenizer, IInferenceParams options)
{
    private readonly StreamingTokenDecoder _decoder = new(tokenizer) { DecodeSpecialTokens = options.DecodeSpecialTokens };
    private readonly StopStrings _stops = new(options.AntiPrompts);

    /// <summary>Number of generated tokens.</summary>
    public int Count { get; private set; }

    /// <summary>Number of characters that the tokens have completed.</summary>
    public int Length { get; private set; }

    /// <summary>Continues a text that may have stopped inside a character or a stop string.</summary>
    /// <param name="written">Tokens generated before, oldest first.</param>
    public void Continue(ReadOnlySpan<int> written)
    {
        written = written[^Math.Min(written.Length, 4 * (_stops.Longest + 1))..];  // a character spans at most four tokens
        int start = written.Length;
        while (start > 0 && !tokenizer.IsEndOfGeneration(written[start - 1]))
        {
            start--;
        }

        _decoder.AddRange(written[start..]);
        _stops.Add(_decoder.Read());
    }

    /// <summary>Adds a generated token.</summary>
    /// <returns>Text that the token completes, and why generation ends with it.</returns>
    public (string Text, StopReason Stop) Add(int token)
    {
        Count++;
        bool ended = tokenizer.IsEndOfGeneration(token);
        if (!ended)
        {
            _decoder.DecodeSpecialTokens = options.DecodeSpecialTokens || (options as MarkedInferenceParams)?.ShownTokens.Contains(token) == true;
            _decoder.Add(token);  // end tokens are never part of the text, whatever DecodeSpecialTokens is
        }

        string text = _decoder.Read();
        if (ended)
        {
            // Nothing follows, so an incomplete character ends here. In a text that may continue its bytes are kept.
            text += _decoder.Flush();
        }

        Length += text.Length;
        if (ended)
        {
            return (text, StopReason.EndOfGeneration);
        }

        return (text, text.Length > 0 && _stops.Add(text) ? StopReason.AntiPrompt : StopReason.None);
    }
}
