using System.Runtime.CompilerServices;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>A vocabulary's tokens by their bytes. Immutable.</summary>
internal sealed class TokenTrie
{
    private static readonly ConditionalWeakTable<Tokenizer, TokenTrie> Tries = [];

    // Nodes in depth-first order, without the root: the subtree of a node follows it.
    private readonly byte[] _bytes;    // [node]
    private readonly int[] _depths;    // [node], from 0
    private readonly int[] _ends;      // [node]: the node after its subtree
    private readonly int[] _firsts;    // [node], and one more: where its tokens begin in _tokens
    private readonly int[] _tokens;
    private readonly int[] _endTokens;

    /// <summary>Makes the trie of some tokens.</summary>
    /// <param name="size">Number of ids.</param>
    /// <param name="tokens">Those with bytes that are part of the text.</param>
    /// <param name="endTokens">Those that end the text.</param>
    public TokenTrie(int size, IEnumerable<(int Id, byte[] Bytes)> tokens, int[] endTokens)
    {
        (Size, _endTokens) = (size, endTokens);
        var bytes = new List<byte>();
        var depths = new List<int>();
        var ends = new List<int>();
        var firsts = new List<int>();
        var ids = new List<int>();
        var path = new Stack<int>();
        byte[] before = [];
        foreach ((int id, byte[] token) in tokens.OrderBy(token => token.Bytes, Comparer<byte[]>.Create(static (a, b) => a.AsSpan().SequenceCompareTo(b))))
        {
            if (token.Length == 0)
            {
                continue;
            }

            int same = before.AsSpan().CommonPrefixLength(token);
            Close(same);
            for (int depth = same; depth < token.Length; depth++)
            {
                path.Push(bytes.Count);
                bytes.Add(token[depth]);
                depths.Add(depth);
                ends.Add(0);
                firsts.Add(ids.Count);
            }

            ids.Add(id);
            before = token;
            Longest = Math.Max(Longest, token.Length);
        }

        Close(0);
        firsts.Add(ids.Count);
        (_bytes, _depths, _ends, _firsts, _tokens) = ([.. bytes], [.. depths], [.. ends], [.. firsts], [.. ids]);

        void Close(int depth)
        {
            while (path.Count > depth)
            {
                ends[path.Pop()] = bytes.Count;
            }
        }
    }

    /// <summary>Number of ids.</summary>
    public int Size { get; }

    /// <summary>Bytes of the longest token.</summary>
    public int Longest { get; }

    public static TokenTrie Of(Tokenizer tokenizer) => Tries.GetValue(tokenizer, static t => new TokenTrie(
        t.VocabularySize,
        Enumerable.Range(0, t.VocabularySize).Where(id => !t.IsEndOfGeneration(id)).Select(id => (id, t.GetBytes(id).ToArray())),
        t.EndTokens));

    /// <summary>A bit for each token whose bytes the grammar allows from a state on, and for the ends where it may end.</summary>
    public ulong[] Allowed(GrammarStates states, GrammarState state)
    {
        var allowed = new ulong[(Size + 63) / 64];
        if (state.CanEnd)
        {
            foreach (int end in _endTokens)
            {
                allowed[end >> 6] |= 1ul << (end & 63);
            }
        }

        // [depth]: the state before the byte of a node of that depth.
        var path = new GrammarState[Longest + 1];
        path[0] = state;
        int visited = 0;
        for (int node = 0; node < _bytes.Length;)
        {
            if ((++visited & 63) == 0)
            {
                states.Work.Add(1);
            }

            int depth = _depths[node];
            if (states.Next(path[depth], _bytes[node]) is not { } next)
            {
                node = _ends[node];
                continue;
            }

            path[depth + 1] = next;
            for (int i = _firsts[node]; i < _firsts[node + 1]; i++)
            {
                int token = _tokens[i];
                allowed[token >> 6] |= 1ul << (token & 63);
            }

            node++;
        }

        return allowed;
    }
}
