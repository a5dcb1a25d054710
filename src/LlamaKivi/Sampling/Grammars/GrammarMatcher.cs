using System.Text;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Follows the tokens of a text through a grammar and computes which may come next. Not thread-safe.</summary>
internal sealed class GrammarMatcher
{
    private readonly GrammarMasks _masks;
    private readonly GrammarVocabulary _vocabulary;
    private GrammarState _state;
    private bool _ended;

    public GrammarMatcher(CompiledGrammar grammar, Tokenizer tokenizer)
        : this(grammar, new GrammarVocabulary(tokenizer, new HashSet<int>()))
    {
    }

    public GrammarMatcher(CompiledGrammar grammar, GrammarVocabulary vocabulary)
    {
        _masks = vocabulary.MasksOf(grammar);
        _vocabulary = vocabulary;
        _state = _masks.Start();
    }

    /// <summary>Whether the text may end here.</summary>
    public bool CanEnd => _state.CanEnd || _ended;

    public void Reset()
    {
        _state = _masks.Start();
        _ended = false;
    }

    /// <summary>Masks the tokens that the grammar does not allow next.</summary>
    /// <exception cref="GrammarException">The grammar allows no token.</exception>
    /// <exception cref="OperationCanceledException">The step was cancelled.</exception>
    public void Mask(Span<float> logits)
    {
        (ulong[] shorts, ulong[] longs) = _masks.Allowed(ref _state);
        bool any = false;
        int size = Math.Min(logits.Length, _vocabulary.Tokenizer.VocabularySize);
        for (int i = 0; i < size; i++)
        {
            ulong allowed = longs.Length == 0 ? shorts[i >> 6] : shorts[i >> 6] | longs[i >> 6];
            bool may = (allowed >> (i & 63) & 1) != 0 && (!_ended || _vocabulary.Tokenizer.IsEndOfGeneration(i));
            any |= may;
            logits[i] = may ? logits[i] : float.NegativeInfinity;
        }

        logits[size..].Fill(float.NegativeInfinity);
        if (!any)
        {
            throw new GrammarException("The grammar allows no token of this model's vocabulary here, and no end of the text.");
        }
    }

    /// <summary>Appends a token to the text.</summary>
    /// <exception cref="GrammarException">The grammar does not allow the token.</exception>
    public void Accept(int token)
    {
        if (_vocabulary.Tokenizer.IsEndOfGeneration(token))
        {
            _ended = _state.CanEnd || _ended ? true : throw new GrammarException("The text ends where the grammar does not allow it.");
            return;
        }

        _state = _masks.After(_state, _vocabulary.BytesOf(token)) ?? throw new GrammarException($"The grammar does not allow the token {token} here.");
    }

    /// <summary>Appends bytes to the text.</summary>
    /// <exception cref="GrammarException">The grammar does not allow the bytes.</exception>
    public void AcceptText(ReadOnlyMemory<byte> text)
    {
        if (!TryAcceptText(text))
        {
            throw new GrammarException($"The grammar does not allow the text '{Encoding.UTF8.GetString(text.Span)}' here.");
        }
    }

    /// <summary>Appends bytes to the text if the grammar allows them.</summary>
    public bool TryAcceptText(ReadOnlyMemory<byte> text)
    {
        GrammarState? next = _masks.After(_state, text);
        _state = next ?? _state;
        return next is not null;
    }
}
