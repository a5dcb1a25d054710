using System.Buffers;
using System.Text;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Tokenization;

/// <summary>
/// Byte-level BPE (tokenizer.ggml.model = gpt2): text is split by regular expressions; within a piece, the adjacent pair
/// with the lowest rank is merged repeatedly until no pair has a rank.
/// </summary>
// Not Microsoft.ML.Tokenizers.BpeTokenizer: its BpeOptions lack ignore_merges, so llama-bpe vocabularies would get
// different ids, and it parses vocabulary and merges from text instead of taking arrays.
internal sealed class BytePairTokenizer : Tokenizer
{
    private readonly Vocabulary _vocabulary;
    private readonly PreTokenizer _preTokenizer;
    private readonly Dictionary<string, int>.AlternateLookup<ReadOnlySpan<char>> _ids;
    private readonly Dictionary<(int Left, int Right), (int Rank, int Id)> _merges;
    private readonly int[] _byteIds = new int[256]; // [byte], -1: no token

    public BytePairTokenizer(Vocabulary vocabulary, ILogger logger)
        : this(vocabulary, FindPreTokenizer(vocabulary.Pre, logger))
    {
        int missing = Vocabulary.MissingBytes(_byteIds);
        if (missing > 0)
        {
            TokenizerLog.MissingBytes(logger, missing);
        }
    }

    private BytePairTokenizer(Vocabulary vocabulary, PreTokenizer preTokenizer)
        : base(vocabulary, TokenBytes, preTokenizer.AddBos)
    {
        _vocabulary = vocabulary;
        _preTokenizer = preTokenizer;
        _ids = vocabulary.Ids.GetAlternateLookup<ReadOnlySpan<char>>();
        _merges = ReadMerges(vocabulary);
        for (int value = 0; value < _byteIds.Length; value++)
        {
            _byteIds[value] = _ids.TryGetValue([ByteLevel.ToChar((byte)value)], out int id) ? id : -1;
        }
    }

    private protected override void EncodeFragment(string text, bool isStart, List<int> ids)
    {
        if (text.Length == 0)
        {
            return;
        }

        List<Range> pieces = _preTokenizer.Split(text);
        int longest = pieces.Max(piece => piece.End.Value - piece.Start.Value);
        byte[] utf8 = ArrayPool<byte>.Shared.Rent(Encoding.UTF8.GetMaxByteCount(longest));
        char[] spelling = ArrayPool<char>.Shared.Rent(utf8.Length);
        var queue = new PriorityQueue<Candidate, (int Rank, int Position)>();
        foreach (Range piece in pieces)
        {
            ReadOnlySpan<byte> bytes = utf8.AsSpan(0, Encoding.UTF8.GetBytes(text.AsSpan(piece), utf8));
            if (!_preTokenizer.IgnoreMerges || !TryFindWhole(bytes, spelling, out int whole))
            {
                Merge(bytes, queue, ids);
            }
            else
            {
                ids.Add(whole);
            }
        }

        ArrayPool<byte>.Shared.Return(utf8);
        ArrayPool<char>.Shared.Return(spelling);
    }

    private protected override void EncodeByte(byte value, List<int> ids)
    {
        if (_byteIds[value] >= 0)
        {
            ids.Add(_byteIds[value]);
        }
    }

    private bool TryFindWhole(ReadOnlySpan<byte> bytes, Span<char> spelling, out int id)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            spelling[i] = ByteLevel.ToChar(bytes[i]);
        }

        return _ids.TryGetValue(spelling[..bytes.Length], out id) && !_vocabulary.IsSpecial(id);
    }

    /// <summary>Merges by ascending rank, leftmost first on ties. The queue makes it O(n log n); it is empty before and after the call.</summary>
    private void Merge(ReadOnlySpan<byte> bytes, PriorityQueue<Candidate, (int Rank, int Position)> queue, List<int> ids)
    {
        Symbol[] symbols = ArrayPool<Symbol>.Shared.Rent(bytes.Length); // a linked list by index; [0] is always the head
        int count = 0;
        foreach (byte value in bytes)
        {
            if (_byteIds[value] >= 0)
            {
                symbols[count] = new Symbol { Id = _byteIds[value], Previous = count - 1, Next = count + 1 };
                count++;
            }
        }

        for (int i = 0; i + 1 < count; i++)
        {
            Enqueue(symbols, i, i + 1, queue);
        }

        while (queue.TryDequeue(out Candidate candidate, out _))
        {
            ref Symbol left = ref symbols[candidate.Left];
            ref Symbol right = ref symbols[candidate.Right];
            if (left.Id != candidate.LeftId || right.Id != candidate.RightId || left.Next != candidate.Right)
            {
                continue; // one of the two has been merged with another neighbour
            }

            left.Id = candidate.Id;
            left.Next = right.Next;
            right.Id = -1;
            if (left.Next < count)
            {
                symbols[left.Next].Previous = candidate.Left;
                Enqueue(symbols, candidate.Left, left.Next, queue);
            }

            if (left.Previous >= 0)
            {
                Enqueue(symbols, left.Previous, candidate.Left, queue);
            }
        }

        for (int i = 0; i < count; i = symbols[i].Next)
        {
            ids.Add(symbols[i].Id);
        }

        ArrayPool<Symbol>.Shared.Return(symbols);
    }

    private void Enqueue(Symbol[] symbols, int left, int right, PriorityQueue<Candidate, (int Rank, int Position)> queue)
    {
        (int leftId, int rightId) = (symbols[left].Id, symbols[right].Id);
        if (_merges.TryGetValue((leftId, rightId), out (int Rank, int Id) merge))
        {
            queue.Enqueue(new Candidate(left, right, leftId, rightId, merge.Id), (merge.Rank, left));
        }
    }

    private static byte[] TokenBytes(string text, TokenType type) =>
        type is TokenType.Control or TokenType.UserDefined or TokenType.Unknown ? Encoding.UTF8.GetBytes(text) : ByteLevel.ToBytes(text);

    private static PreTokenizer FindPreTokenizer(string? pre, ILogger logger)
    {
        if (PreTokenizer.Find(pre ?? "") is PreTokenizer known)
        {
            return known;
        }

        TokenizerLog.UnknownPreTokenizer(logger, pre ?? "(absent)");
        return PreTokenizer.Default;
    }

    private static Dictionary<(int Left, int Right), (int Rank, int Id)> ReadMerges(Vocabulary vocabulary)
    {
        string[] lines = vocabulary.Merges();
        var merges = new Dictionary<(int Left, int Right), (int Rank, int Id)>(lines.Length);
        var ids = vocabulary.Ids.GetAlternateLookup<ReadOnlySpan<char>>();
        for (int rank = 0; rank < lines.Length; rank++)
        {
            string line = lines[rank];
            int space = line.IndexOf(' ', StringComparison.Ordinal);
            if (space <= 0 || space + 1 == line.Length)
            {
                throw Vocabulary.Bad($"tokenizer.ggml.merges[{rank}] is '{line}'; expected two tokens and a space between them");
            }

            ReadOnlySpan<char> left = line.AsSpan(0, space);
            ReadOnlySpan<char> right = line.AsSpan(space + 1);
            string merged = string.Concat(left, right);
            if (!ids.TryGetValue(left, out int leftId) || !ids.TryGetValue(right, out int rightId)
                || !vocabulary.Ids.TryGetValue(merged, out int id))
            {
                throw Vocabulary.Bad(
                    $"tokenizer.ggml.merges[{rank}] is '{line}', but tokenizer.ggml.tokens lacks one of the two tokens or '{merged}'");
            }

            merges.TryAdd((leftId, rightId), (rank, id));
        }

        return merges;
    }

    private struct Symbol
    {
        public int Id;
        public int Previous; // -1: first
        public int Next; // the number of symbols: last
    }

    private readonly record struct Candidate(int Left, int Right, int LeftId, int RightId, int Id);
}
