using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Follows the tokens of a text through a grammar, and tells which may come next. One thread at a time may use it.</summary>
internal sealed class GrammarMatcher
{
    private readonly GrammarStates _states;
    private readonly Tokenizer _tokenizer;
    private readonly TokenTrie _trie;
    private GrammarStates.State _state;
    private bool _ended;

    public GrammarMatcher(CompiledGrammar grammar, Tokenizer tokenizer)
    {
        _states = new GrammarStates(grammar);
        _tokenizer = tokenizer;
        _trie = TokenTrie.Of(tokenizer);
        _state = _states.Start;
    }

    public void Reset()
    {
        _state = _states.Start;
        _ended = false;
    }

    /// <summary>Rules out the tokens that the grammar does not allow next.</summary>
    /// <exception cref="GrammarException">It allows none.</exception>
    public void Mask(Span<float> logits)
    {
        ulong[] allowed = _state.Allowed ??= _trie.Allowed(_states, _state, _tokenizer);
        bool any = false;
        for (int i = 0; i < logits.Length; i++)
        {
            bool may = i < _tokenizer.VocabularySize && (allowed[i >> 6] >> (i & 63) & 1) != 0 && (!_ended || _tokenizer.IsEndOfGeneration(i));
            any |= may;
            logits[i] = may ? logits[i] : float.NegativeInfinity;
        }

        if (!any)
        {
            throw new GrammarException("The grammar allows no token of this model's vocabulary here, and no end of the text.");
        }
    }

    /// <summary>Takes a token into the text.</summary>
    /// <exception cref="GrammarException">The grammar does not allow it.</exception>
    public void Accept(int token)
    {
        if (_tokenizer.IsEndOfGeneration(token))
        {
            _ended = _state.CanEnd || _ended ? true : throw new GrammarException("The text ends where the grammar does not allow it.");
            return;
        }

        Accept(_tokenizer.GetBytes(token).Span, () => $"The grammar does not allow the token {token} here.");
    }

    /// <summary>Takes bytes of the text.</summary>
    /// <exception cref="GrammarException">The grammar does not allow them.</exception>
    public void AcceptText(ReadOnlySpan<byte> text)
    {
        string shown = Encoding.UTF8.GetString(text);
        Accept(text, () => $"The grammar does not allow the text '{shown}' here.");
    }

    private void Accept(ReadOnlySpan<byte> text, Func<string> error)
    {
        GrammarStates.State? state = _state;
        foreach (byte value in text)
        {
            state = _states.Next(state, value) ?? throw new GrammarException(error());
        }

        _state = _states.Trim(state);
    }
}

/// <summary>A vocabulary's tokens by their bytes.</summary>
internal sealed class TokenTrie
{
    private static readonly ConditionalWeakTable<Tokenizer, TokenTrie> Tries = [];

    private readonly List<byte> _byte = [];
    private readonly List<int> _child = [];    // first child; -1: none
    private readonly List<int> _sibling = [];  // next one; -1: none
    private readonly List<List<int>?> _tokens = [];
    private readonly int _size;

    private TokenTrie(Tokenizer tokenizer)
    {
        _size = tokenizer.VocabularySize;
        AddNode(0);
        IEnumerable<(byte[] Bytes, int Id)> tokens = Enumerable.Range(0, _size)
            .Where(id => !tokenizer.IsEndOfGeneration(id))
            .Select(id => (tokenizer.GetBytes(id).ToArray(), id))
            .Where(token => token.Item1.Length > 0)
            .OrderBy(token => token.Item1, Comparer<byte[]>.Create((a, b) => a.AsSpan().SequenceCompareTo(b)));
        var path = new List<int> { 0 };
        byte[] before = [];
        foreach ((byte[] bytes, int id) in tokens)
        {
            int same = before.AsSpan().CommonPrefixLength(bytes);
            path.RemoveRange(same + 1, path.Count - same - 1);
            for (int i = same; i < bytes.Length; i++)
            {
                int node = AddNode(bytes[i]);
                _sibling[node] = _child[path[^1]];
                _child[path[^1]] = node;
                path.Add(node);
            }

            (_tokens[path[^1]] ??= []).Add(id);
            before = bytes;
        }
    }

    public static TokenTrie Of(Tokenizer tokenizer) => Tries.GetValue(tokenizer, static t => new TokenTrie(t));

    /// <summary>A bit for each token whose bytes the grammar allows from a state on, and for the ends where it may end.</summary>
    public ulong[] Allowed(GrammarStates states, GrammarStates.State state, Tokenizer tokenizer)
    {
        var allowed = new ulong[(_size + 63) / 64];
        if (state.CanEnd)
        {
            foreach (int end in tokenizer.EndTokens)
            {
                allowed[end >> 6] |= 1ul << (end & 63);
            }
        }

        var open = new Stack<(int Node, GrammarStates.State State)>();
        open.Push((0, state));
        while (open.TryPop(out (int Node, GrammarStates.State State) at))
        {
            for (int node = _child[at.Node]; node >= 0; node = _sibling[node])
            {
                if (states.Next(at.State, _byte[node]) is not { } next)
                {
                    continue;
                }

                foreach (int id in _tokens[node] ?? [])
                {
                    allowed[id >> 6] |= 1ul << (id & 63);
                }

                if (_child[node] >= 0)
                {
                    open.Push((node, next));
                }
            }
        }

        return allowed;
    }

    private int AddNode(byte value)
    {
        _byte.Add(value);
        _child.Add(-1);
        _sibling.Add(-1);
        _tokens.Add(null);
        return _byte.Count - 1;
    }
}
