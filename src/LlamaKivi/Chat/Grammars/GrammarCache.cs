using LlamaKivi.Sampling;

namespace LlamaKivi;

/// <summary>Keeps the grammars that were used last, because compiling one and finding its masks takes longer than following it.</summary>
internal sealed class GrammarCache
{
    private const int Capacity = 16;

    private readonly Lock _lock = new();
    private readonly LinkedList<Grammar> _grammars = [];  // the last used first

    /// <summary>The grammars of an answer, compiled.</summary>
    /// <exception cref="GrammarException">The answer's grammar cannot be used; one of calls that cannot is left out, because nothing asked for it.</exception>
    public AnswerGrammar Prepare(AnswerGrammar grammar)
    {
        Grammar? answer = Known(grammar.Answer);
        Grammar? calls = Known(grammar.Calls);
        answer?.Validate();
        try
        {
            calls?.Validate();
        }
        catch (GrammarException)
        {
            calls = null;
        }

        return new AnswerGrammar(answer, calls);
    }

    private Grammar? Known(Grammar? grammar)
    {
        if (grammar is null)
        {
            return null;
        }

        lock (_lock)
        {
            LinkedListNode<Grammar>? known = _grammars.Find(grammar);
            if (known is not null)
            {
                _grammars.Remove(known);
            }
            else if (_grammars.Count == Capacity)
            {
                _grammars.RemoveLast();
            }

            return _grammars.AddFirst(known?.Value ?? grammar).Value;
        }
    }
}
