using System.Collections.Frozen;
using System.Runtime.CompilerServices;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>
/// A trie of a vocabulary's tokens, in two parts by length: short tokens depend less on the counts of repetitions, so
/// their masks are reused more often. Immutable.
/// </summary>
internal sealed class TokenTrie
{
    /// <summary>Number of parts.</summary>
    public const int Parts = 2;

    private const int ShortToken = 16;

    private static readonly ConditionalWeakTable<Tokenizer, TokenTrie> Tries = [];

    private readonly Part[] _parts;
    private readonly int[] _endTokens;

    /// <summary>Builds the trie.</summary>
    /// <param name="size">Number of ids.</param>
    /// <param name="tokens">Tokens with text; those without bytes are skipped.</param>
    /// <param name="endTokens">Tokens that end the text.</param>
    public TokenTrie(int size, IEnumerable<(int Id, byte[] Bytes)> tokens, int[] endTokens)
    {
        (Size, _endTokens) = (size, endTokens);
        ILookup<bool, (int Id, byte[] Bytes)> byLength = tokens.Where(token => token.Bytes.Length > 0)
            .OrderBy(token => token.Bytes, Comparer<byte[]>.Create(static (a, b) => a.AsSpan().SequenceCompareTo(b)))
            .ToLookup(token => token.Bytes.Length > ShortToken);
        _parts = [new Part(byLength[false]), new Part(byLength[true])];
    }

    /// <summary>Number of ids.</summary>
    public int Size { get; }

    /// <summary>[part]: length of its longest token in bytes.</summary>
    public int[] Longest => [.. _parts.Select(part => part.Longest)];

    public static TokenTrie Of(Tokenizer tokenizer) => Tries.GetValue(tokenizer, static t => Of(t, FrozenSet<int>.Empty));

    /// <summary>Builds the trie of a vocabulary in which some control tokens have their names as text. Not cached.</summary>
    public static TokenTrie Of(Tokenizer tokenizer, IReadOnlySet<int> shown) => new(
        tokenizer.VocabularySize,
        Enumerable.Range(0, tokenizer.VocabularySize).Where(id => !tokenizer.IsEndOfGeneration(id)).Select(id => (id, tokenizer.GetBytes(id, shown.Contains(id)).ToArray())),
        tokenizer.EndTokens);

    /// <summary>Bit mask of the tokens of a part that the grammar allows in a state; the first part includes the end tokens if the text may end.</summary>
    public ulong[] Allowed(int part, GrammarStates states, GrammarState state)
    {
        if (part > 0 && _parts[part].Longest == 0)
        {
            return [];
        }

        var allowed = new ulong[(Size + 63) / 64];
        if (part == 0 && state.CanEnd)
        {
            foreach (int end in _endTokens)
            {
                allowed[end >> 6] |= 1ul << (end & 63);
            }
        }

        _parts[part].AddAllowed(allowed, states, state);
        return allowed;
    }

    private sealed class Part
    {
        // Nodes in depth-first order, without the root: the subtree of a node follows it.
        private readonly byte[] _bytes;  // [node]
        private readonly int[] _depths;  // [node], from 0
        private readonly int[] _ends;    // [node]: the node after its subtree
        private readonly int[] _firsts;  // [node], and one more: where its tokens begin in _tokens
        private readonly int[] _tokens;

        public Part(IEnumerable<(int Id, byte[] Bytes)> sorted)
        {
            var bytes = new List<byte>();
            var depths = new List<int>();
            var ends = new List<int>();
            var firsts = new List<int>();
            var ids = new List<int>();
            var path = new Stack<int>();
            byte[] before = [];
            foreach ((int id, byte[] token) in sorted)
            {
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

        public int Longest { get; }

        public void AddAllowed(Span<ulong> allowed, GrammarStates states, GrammarState state)
        {
            var path = new GrammarState[Longest + 1];  // [depth]: the state before the byte of a node of that depth
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
        }
    }
}
