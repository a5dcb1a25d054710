using System.Buffers;
using System.Text;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace LlamaKivi.Tokenization;

/// <summary>Converts text to token ids and back, as defined by a GGUF file's metadata. Immutable and thread-safe.</summary>
public abstract partial class Tokenizer
{
    private readonly Vocabulary _vocabulary;
    private readonly byte[][] _bytes; // [id]
    private readonly (int Id, string Name)[] _specials; // matched in text as a whole, longest name first
    private readonly HashSet<int> _ends = [];
    private readonly Lazy<int> _longestToken;

    private protected Tokenizer(Vocabulary vocabulary, Func<string, TokenType, byte[]> tokenBytes, bool addBosByDefault)
    {
        _vocabulary = vocabulary;
        _bytes = new byte[vocabulary.Texts.Length][];
        for (int id = 0; id < _bytes.Length; id++)
        {
            _bytes[id] = tokenBytes(vocabulary.Texts[id], vocabulary.Types[id]);
        }

        _longestToken = new(() => DropsNoText() ? _bytes.Max(bytes => bytes.Length) : int.MaxValue);
        _specials = [.. Enumerable.Range(0, _bytes.Length)
            .Where(id => IsCutOut(id) && _bytes[id].Length > 0)
            .OrderByDescending(id => _bytes[id].Length)
            .Select(id => (id, Encoding.UTF8.GetString(_bytes[id])))];

        BosId = vocabulary.SpecialId("tokenizer.ggml.bos_token_id");
        EosId = vocabulary.SpecialId("tokenizer.ggml.eos_token_id");
        EotId = vocabulary.SpecialId("tokenizer.ggml.eot_token_id") ?? EndTokenNames.FindEndOfTurn(_specials, EosId);
        EomId = vocabulary.SpecialId("tokenizer.ggml.eom_token_id");
        UnknownId = vocabulary.SpecialId("tokenizer.ggml.unknown_token_id");
        PaddingId = vocabulary.SpecialId("tokenizer.ggml.padding_token_id");
        int newline = Array.FindIndex(_bytes, bytes => bytes is [(byte)'\n']);
        NewlineId = newline >= 0 ? newline : null;
        AddBos = vocabulary.Flag("tokenizer.ggml.add_bos_token", addBosByDefault && BosId is not null);
        AddEos = vocabulary.Flag("tokenizer.ggml.add_eos_token", false);
        if (AddBos && BosId is null)
        {
            throw Vocabulary.Bad("tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is missing");
        }

        if (AddEos && EosId is null)
        {
            throw Vocabulary.Bad("tokenizer.ggml.add_eos_token is true, but tokenizer.ggml.eos_token_id is missing");
        }

        _ends.UnionWith(new[] { EosId, EotId, EomId }.OfType<int>());
        _ends.UnionWith(EndTokenNames.Find(_specials));
    }

    /// <summary>Line break token; null if a line break is not a single token.</summary>
    public int? NewlineId { get; }

    internal int[] EndTokens => [.. _ends];

    /// <summary>Tokens that are matched in a text by their whole name, longest first.</summary>
    internal IReadOnlyList<(int Id, string Name)> Specials => _specials;

    /// <summary>Number of tokens; ids are less than this.</summary>
    public int VocabularySize => _vocabulary.Size;

    /// <summary>Beginning-of-text token (BOS); null if the vocabulary has none.</summary>
    public int? BosId { get; }

    /// <summary>End-of-text token (EOS); null if the vocabulary has none.</summary>
    public int? EosId { get; }

    /// <summary>End-of-turn token (EOT): from the file's metadata, or a special token with a known name, such as &lt;|eot_id|&gt;; null if there is none.</summary>
    public int? EotId { get; }

    /// <summary>End-of-message token (EOM); null if the file names none.</summary>
    public int? EomId { get; }

    /// <summary>Unknown token; null if the file names none.</summary>
    public int? UnknownId { get; }

    /// <summary>Padding token; null if the file names none.</summary>
    public int? PaddingId { get; }

    /// <summary>Whether the model expects BOS before a text.</summary>
    public bool AddBos { get; }

    /// <summary>Whether the model expects EOS after a text. <see cref="Encode(string, bool, bool)"/> does not append it.</summary>
    public bool AddEos { get; }

    /// <summary>Whether token texts are known. If not, encoding and decoding throw <see cref="UnsupportedModelException"/>.</summary>
    public bool HasTexts => _bytes.Length > 0;

    /// <summary>Most bytes of text that one token stands for; <see cref="int.MaxValue"/> if encoding may drop text.</summary>
    internal int LongestToken => _longestToken.Value;

    // Token with a name from the metadata, such as "mask"; null if the file names none.
    internal int? NamedId(string name) => _vocabulary.SpecialId($"tokenizer.ggml.{name}_token_id");

    /// <summary>Creates the tokenizer of a model file.</summary>
    /// <param name="file">The file; not used after the call.</param>
    /// <param name="logger">Receives warnings about valid metadata that is not fully supported.</param>
    /// <exception cref="ModelLoadException">The tokenizer metadata is missing or inconsistent.</exception>
    /// <exception cref="UnsupportedModelException">The tokenizer type is not implemented.</exception>
    public static Tokenizer FromGguf(GgufFile file, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(file);
        try
        {
            return Read(file, logger);
        }
        catch (ModelLoadException e) when (e.ModelPath.Length == 0)
        {
            throw new ModelLoadException(e.Status, $"{file.Path}: {e.Message}", file.Path);
        }
        catch (UnsupportedModelException e) when (e.ModelPath.Length == 0)
        {
            throw new UnsupportedModelException($"{file.Path}: {e.Message}", file.Path);
        }
    }

    // The bytes C0, C1 and F5 to FF do not occur in UTF-8.
    private bool DropsNoText() => _bytes.Where(bytes => bytes is [not (0xC0 or 0xC1 or >= 0xF5)]).DistinctBy(bytes => bytes[0]).Count() == 256 - 13;

    private static Tokenizer Read(GgufFile file, ILogger? logger)
    {
        string model = file.GetString("tokenizer.ggml.model") ?? throw (file.GetInteger("split.no") > 0
            ? Vocabulary.Bad($"this is part {file.GetInteger("split.no") + 1} of {file.GetInteger("split.count")} of a split model; load the first part, which has the tokenizer")
            : Vocabulary.Bad("tokenizer.ggml.model is missing or not a string"));
        return model switch
        {
            "gpt2" => new BytePairTokenizer(new Vocabulary(file), logger ?? NullLogger.Instance),
            "llama" => new SentencePieceTokenizer(new Vocabulary(file), logger ?? NullLogger.Instance),
            "no_vocab" => new NoVocabularyTokenizer(Vocabulary.WithoutTexts(file)),
            _ => throw new UnsupportedModelException(
                $"tokenizer.ggml.model is '{model}', which is not implemented; supported: 'gpt2' (byte-level BPE), 'llama' (SentencePiece), 'no_vocab'"),
        };
    }

    /// <summary>Encodes a text.</summary>
    /// <param name="text">Any text. Unpaired surrogates are encoded as U+FFFD. Text without a token, even for its bytes, is
    /// dropped (byte-level BPE) or becomes the unknown token (SentencePiece).</param>
    /// <param name="addBos">Whether to prepend BOS; ignored if the vocabulary has none.</param>
    /// <param name="parseSpecial">Whether names of control tokens in the text are parsed as those tokens. Use false for
    /// text from users. User-defined tokens are always parsed.</param>
    /// <exception cref="UnsupportedModelException">The file has no vocabulary.</exception>
    public int[] Encode(string text, bool addBos, bool parseSpecial)
    {
        ArgumentNullException.ThrowIfNull(text);
        return Encode(new PromptText(text), addBos, parseSpecial);
    }

    /// <summary>Decodes tokens to text. Invalid UTF-8, such as a part of a character, becomes U+FFFD.</summary>
    /// <inheritdoc cref="DecodeBytes"/>
    public string Decode(ReadOnlySpan<int> ids, bool special = false) => Encoding.UTF8.GetString(DecodeBytes(ids, special));

    /// <summary>Decodes tokens to UTF-8 text; the inverse of <see cref="Encode(string, bool, bool)"/>.</summary>
    /// <param name="ids">Token ids of a text from its start: the space that SentencePiece adds before a text is removed.
    /// For the continuation of a text, which keeps its leading space, use <see cref="StreamingTokenDecoder"/>.</param>
    /// <param name="special">Whether control tokens appear as their names instead of empty text.</param>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain an id.</exception>
    public byte[] DecodeBytes(ReadOnlySpan<int> ids, bool special = false)
    {
        var text = new ArrayBufferWriter<byte>(ids.Length * 4 + 1);
        bool prefixed = AddsSpacePrefix; // the next text starts with a space that the tokenizer added
        foreach (int id in ids)
        {
            ReadOnlySpan<byte> bytes = GetBytes(id, special).Span;
            bool isCut = IsCutOut(id);
            text.Write(prefixed && !isCut && bytes is [(byte)' ', ..] ? bytes[1..] : bytes);
            prefixed = AddsSpacePrefix && (isCut || (prefixed && bytes.IsEmpty));
        }

        return text.WrittenSpan.ToArray();
    }

    /// <summary>Bytes of a token, possibly a part of a UTF-8 character.</summary>
    /// <param name="id">Token id.</param>
    /// <param name="special">Whether a control token is its name instead of empty.</param>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain the id.</exception>
    public ReadOnlyMemory<byte> GetBytes(int id, bool special = false)
    {
        CheckId(id);
        return !special && _vocabulary.IsSpecial(id) ? default : _bytes[id];
    }

    /// <summary>Vocabulary entry as spelled in the file (a space is U+0120 in byte-level BPE, U+2581 in SentencePiece).</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain the id.</exception>
    public string GetText(int id)
    {
        CheckId(id);
        return _vocabulary.Texts[id];
    }

    /// <summary>Whether a token is a control token.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary does not contain the id.</exception>
    public bool IsControl(int id)
    {
        CheckId(id);
        return _vocabulary.Types[id] == TokenType.Control;
    }

    /// <summary>
    /// Whether a token ends generation: the file's EOS, EOT and EOM, and special tokens with a known end name, such as
    /// &lt;|im_end|&gt; and &lt;|eot_id|&gt;. False for ids outside the vocabulary.
    /// </summary>
    public bool IsEndOfGeneration(int id) => _ends.Contains(id);

    /// <summary>Tokens whose text contains one of the given strings.</summary>
    internal HashSet<LLamaToken> TokensWith(ReadOnlySpan<string> texts)
    {
        var found = new HashSet<LLamaToken>();
        foreach (string text in texts)
        {
            byte[] wanted = Encoding.UTF8.GetBytes(text);
            for (int id = 0; id < _bytes.Length && wanted.Length > 0; id++)
            {
                if (_bytes[id].AsSpan().IndexOf(wanted) >= 0)
                {
                    found.Add(id);
                }
            }
        }

        return found;
    }

    /// <summary>Whether a space is prepended to text at the start and after special tokens.</summary>
    private protected virtual bool AddsSpacePrefix => false;

    /// <summary>Encodes a text without special tokens.</summary>
    /// <param name="text">The text.</param>
    /// <param name="isStart">Whether the text is at the start or follows a special token, and does not follow invalid UTF-8.</param>
    /// <param name="ids">Receives the ids.</param>
    private protected abstract void EncodeFragment(string text, bool isStart, List<int> ids);

    /// <summary>Splits a prompt at special tokens. Longer names take precedence: each name is split out of the whole text before the next.</summary>
    /// <returns>In order: a special token's id, or -1 and the range of the text between special tokens.</returns>
    private List<(int Special, Range Part)> SplitSpecials(PromptText prompt, bool parseSpecial)
    {
        string text = prompt.Value;
        List<(int Special, Range Part)> parts = [(-1, ..text.Length)];
        foreach ((int id, string name) in _specials)
        {
            bool wanted = parseSpecial || _vocabulary.Types[id] == TokenType.UserDefined;
            if (!wanted || !parts.Exists(part => part.Special < 0 && text.AsSpan(part.Part).Contains(name, StringComparison.Ordinal)))
            {
                continue;
            }

            var split = new List<(int Special, Range Part)>();
            foreach ((int special, Range part) in parts)
            {
                (int done, int end) = (part.Start.Value, part.End.Value);
                for (int from = done; special < 0;)
                {
                    int found = text.IndexOf(name, from, end - from, StringComparison.Ordinal);
                    if (found < 0)
                    {
                        break;
                    }

                    from = found + 1;
                    if (prompt.Allows(id, found, name.Length))
                    {
                        split.Add((-1, done..found));
                        split.Add((id, found..found));
                        from = done = found + name.Length;
                    }
                }

                split.Add((special, done..end));
            }

            split.RemoveAll(part => part.Special < 0 && part.Part.Start.Value == part.Part.End.Value);
            parts = split;
        }

        return parts;
    }

    /// <summary>Attributes of a token.</summary>
    public LLamaTokenAttr AttributesOf(int id) => !HasTexts || (uint)id >= (uint)VocabularySize ? LLamaTokenAttr.Undefined : _vocabulary.Types[id] switch
    {
        TokenType.Unknown => LLamaTokenAttr.Unknown,
        TokenType.Control => LLamaTokenAttr.Control,
        TokenType.UserDefined => LLamaTokenAttr.UserDefined,
        TokenType.Unused => LLamaTokenAttr.Unused,
        TokenType.Byte => LLamaTokenAttr.Byte,
        _ => LLamaTokenAttr.Normal,
    };

    /// <summary>Score of a token; 0 if the vocabulary has no scores.</summary>
    public virtual float ScoreOf(int id) => 0;

    private bool IsCutOut(int id) => _vocabulary.IsSpecial(id) || _vocabulary.Types[id] == TokenType.UserDefined;

    private void CheckTexts()
    {
        if (!HasTexts)
        {
            throw new UnsupportedModelException(
                "tokenizer.ggml.model is 'no_vocab': this file has no vocabulary, so text cannot be encoded or decoded; " +
                "use token ids");
        }
    }

    private void CheckId(int id)
    {
        CheckTexts();
        if ((uint)id >= (uint)VocabularySize)
        {
            throw new ArgumentOutOfRangeException(nameof(id), id, $"Token ids of this vocabulary are 0 to {VocabularySize - 1}.");
        }
    }
}
