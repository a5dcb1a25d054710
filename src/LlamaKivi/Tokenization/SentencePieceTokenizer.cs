using System.Buffers;
using System.Globalization;
using System.Text;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tokenization;

/// <summary>
/// SentencePiece BPE (tokenizer.ggml.model = llama): spaces are written as U+2581; the adjacent pair whose token has the
/// highest score is merged repeatedly until no pair is a token. Characters without a token become byte tokens.
/// </summary>
// Not Microsoft.ML.Tokenizers.SentencePieceTokenizer: it needs a protobuf file, which GGUF files do not contain.
internal sealed class SentencePieceTokenizer : Tokenizer
{
    private const char Space = '\u2581';

    private readonly Vocabulary _vocabulary;
    private readonly float[] _scores; // [id]
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _pieces; // tokens that merging may produce
    private readonly int[] _byteIds = new int[256]; // [byte], -1: no token
    private readonly int _unknown; // -1: none

    public SentencePieceTokenizer(Vocabulary vocabulary, ILogger logger)
        : base(vocabulary, TokenBytes, addBosByDefault: true)
    {
        _vocabulary = vocabulary;
        _scores = vocabulary.Scores();
        _unknown = UnknownId ?? Array.IndexOf(vocabulary.Types, TokenType.Unknown);
        AddsSpacePrefix = vocabulary.Flag("tokenizer.ggml.add_space_prefix", true);

        Array.Fill(_byteIds, -1);
        var pieces = new Dictionary<string, int>(vocabulary.Texts.Length, StringComparer.Ordinal);
        for (int id = 0; id < vocabulary.Texts.Length; id++)
        {
            if (vocabulary.Types[id] is TokenType.Normal or TokenType.UserDefined or TokenType.Unused)
            {
                pieces[vocabulary.Texts[id]] = id;
            }
            else if (vocabulary.Types[id] == TokenType.Byte)
            {
                _byteIds[ParseByte(vocabulary.Texts[id])] = id;
            }
        }

        _pieces = pieces.GetAlternateLookup<ReadOnlySpan<char>>();
        int missing = Vocabulary.MissingBytes(_byteIds);
        if (missing > 0 && _unknown < 0)
        {
            TokenizerLog.MissingBytes(logger, missing);
        }
    }

    /// <inheritdoc/>
    public override float ScoreOf(int id) => (uint)id < (uint)_scores.Length ? _scores[id] : 0;

    private protected override bool AddsSpacePrefix { get; }

    private protected override void EncodeFragment(string text, bool isStart, List<int> ids)
    {
        if (text.Length == 0)
        {
            return;
        }

        if (text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF'))
        {
            text = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)); // unpaired surrogates become U+FFFD
        }

        text = (AddsSpacePrefix && isStart ? " " + text : text).Replace(' ', Space);
        Symbol[] symbols = ArrayPool<Symbol>.Shared.Rent(text.Length); // a linked list by index; [0] is always the head
        int count = 0;
        for (int start = 0; start < text.Length; count++)
        {
            int length = char.IsHighSurrogate(text[start]) ? 2 : 1;
            int id = _pieces.TryGetValue(text.AsSpan(start, length), out int piece) ? piece : -1;
            symbols[count] = new Symbol { Start = start, Length = length, Id = id, Previous = count - 1, Next = count + 1 };
            start += length;
        }

        Dictionary<int, int> splits = Merge(text, symbols.AsSpan(0, count));
        for (int i = 0; i < count; i = symbols[i].Next)
        {
            AddSymbol(text, symbols[i], splits, ids);
        }

        ArrayPool<Symbol>.Shared.Return(symbols);
    }

    /// <summary>Merges by descending score, leftmost first on ties. The queue makes it O(n log n).</summary>
    /// <returns>For each unused token produced: length, in UTF-16 units, of the left symbol it was merged from.</returns>
    private Dictionary<int, int> Merge(ReadOnlySpan<char> text, Span<Symbol> symbols)
    {
        var splits = new Dictionary<int, int>();
        var queue = new PriorityQueue<Candidate, (float NegatedScore, int Position)>();
        for (int i = 0; i + 1 < symbols.Length; i++)
        {
            Enqueue(text, symbols, i, i + 1, queue);
        }

        while (queue.TryDequeue(out Candidate candidate, out _))
        {
            ref Symbol left = ref symbols[candidate.Left];
            ref Symbol right = ref symbols[candidate.Right];
            if (left.Next != candidate.Right || left.Length == 0 || left.Length + right.Length != candidate.Length)
            {
                continue; // one of the two has been merged with another neighbour
            }

            if (_vocabulary.Types[candidate.Id] == TokenType.Unused)
            {
                splits[candidate.Id] = left.Length;
            }

            left.Id = candidate.Id;
            left.Length = candidate.Length;
            left.Next = right.Next;
            right.Length = 0;
            if (left.Next < symbols.Length)
            {
                symbols[left.Next].Previous = candidate.Left;
                Enqueue(text, symbols, candidate.Left, left.Next, queue);
            }

            if (left.Previous >= 0)
            {
                Enqueue(text, symbols, left.Previous, candidate.Left, queue);
            }
        }

        return splits;
    }

    private void Enqueue(
        ReadOnlySpan<char> text, ReadOnlySpan<Symbol> symbols, int left, int right, PriorityQueue<Candidate, (float NegatedScore, int Position)> queue)
    {
        int length = symbols[left].Length + symbols[right].Length;
        if (_pieces.TryGetValue(text.Slice(symbols[left].Start, length), out int id))
        {
            queue.Enqueue(new Candidate(left, right, length, id), (-_scores[id], left));
        }
    }

    // Models never saw unused tokens in training; they only connect merges and are split again. Iterative, because a file may
    // contain a long chain of them.
    private void AddSymbol(ReadOnlySpan<char> text, in Symbol symbol, Dictionary<int, int> splits, List<int> ids)
    {
        if (symbol.Id >= 0 && _vocabulary.Types[symbol.Id] != TokenType.Unused)
        {
            ids.Add(symbol.Id);
            return;
        }

        var pending = new Stack<(int Start, int Length)>([(symbol.Start, symbol.Length)]);
        while (pending.TryPop(out (int Start, int Length) part))
        {
            ReadOnlySpan<char> piece = text.Slice(part.Start, part.Length);
            if (!_pieces.TryGetValue(piece, out int id))
            {
                AddBytes(piece, ids);
            }
            else if (_vocabulary.Types[id] == TokenType.Unused && splits.TryGetValue(id, out int left))
            {
                pending.Push((part.Start + left, part.Length - left));
                pending.Push((part.Start, left));
            }
            else
            {
                ids.Add(id);
            }
        }
    }

    private void AddBytes(ReadOnlySpan<char> character, List<int> ids)
    {
        Span<byte> utf8 = stackalloc byte[4];
        AddBytes(utf8[..Encoding.UTF8.GetBytes(character, utf8)], ids);
    }

    private protected override void EncodeByte(byte value, List<int> ids) => AddBytes([value], ids);

    private void AddBytes(ReadOnlySpan<byte> utf8, List<int> ids)
    {
        bool known = true;
        foreach (byte value in utf8)
        {
            known &= _byteIds[value] >= 0;
        }

        foreach (byte value in known ? utf8 : [])
        {
            ids.Add(_byteIds[value]);
        }

        if (!known && _unknown >= 0)
        {
            ids.Add(_unknown);
        }
    }

    private static byte[] TokenBytes(string text, TokenType type) => type switch
    {
        TokenType.Control or TokenType.Unknown => Encoding.UTF8.GetBytes(text),
        TokenType.Byte => [ParseByte(text)],
        _ => Encoding.UTF8.GetBytes(text.Replace(Space, ' ')),
    };

    private static byte ParseByte(string text) =>
        text.Length == 6 && text.StartsWith("<0x", StringComparison.Ordinal) && text[5] == '>'
            && byte.TryParse(text.AsSpan(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value)
            ? value
            : throw Vocabulary.Bad($"the token '{text}' is of type byte, but is not spelled like <0x0A>");

    private struct Symbol
    {
        public int Start;
        public int Length; // UTF-16 units; 0: merged into the previous symbol
        public int Id; // -1: a character without a token
        public int Previous; // -1: first
        public int Next; // the number of symbols: last
    }

    private readonly record struct Candidate(int Left, int Right, int Length, int Id);
}
