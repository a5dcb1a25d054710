using System.Buffers;
using System.Text;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace LlamaKivi.Tokenization;

/// <summary>Text to token ids and back, as the metadata of a GGUF file describes it. Immutable: may be used by several threads.</summary>
public abstract partial class Tokenizer
{
    private readonly Vocabulary _vocabulary;
    private readonly byte[][] _bytes; // [id]
    private readonly (int Id, string Name)[] _specials; // found in the text as a whole, longest name first
    private readonly HashSet<int> _ends = [];

    private protected Tokenizer(Vocabulary vocabulary, Func<string, TokenType, byte[]> tokenBytes, bool addBosByDefault)
    {
        _vocabulary = vocabulary;
        _bytes = new byte[vocabulary.Texts.Length][];
        for (int id = 0; id < _bytes.Length; id++)
        {
            _bytes[id] = tokenBytes(vocabulary.Texts[id], vocabulary.Types[id]);
        }

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
            throw Vocabulary.Bad("tokenizer.ggml.add_bos_token is true, but there is no tokenizer.ggml.bos_token_id");
        }

        if (AddEos && EosId is null)
        {
            throw Vocabulary.Bad("tokenizer.ggml.add_eos_token is true, but there is no tokenizer.ggml.eos_token_id");
        }

        _ends.UnionWith(new[] { EosId, EotId, EomId }.OfType<int>());
        _ends.UnionWith(EndTokenNames.Find(_specials));
    }

    /// <summary>The line break; null if it is no token of its own.</summary>
    public int? NewlineId { get; }

    internal int[] EndTokens => [.. _ends];

    /// <summary>Tokens that are found in a text by their whole name.</summary>
    internal IReadOnlyList<(int Id, string Name)> Specials => _specials;

    /// <summary>Number of tokens; ids are 0 to this, exclusive.</summary>
    public int VocabularySize => _vocabulary.Size;

    /// <summary>Beginning of a text; null if the vocabulary has none.</summary>
    public int? BosId { get; }

    /// <summary>End of a text; null if the vocabulary has none.</summary>
    public int? EosId { get; }

    /// <summary>End of a turn: what the file says, or a special token of a known name, such as &lt;|eot_id|&gt;; null if there is none.</summary>
    public int? EotId { get; }

    /// <summary>End of a message; null if the file names none.</summary>
    public int? EomId { get; }

    /// <summary>The unknown token; null if the file names none.</summary>
    public int? UnknownId { get; }

    /// <summary>The padding token; null if the file names none.</summary>
    public int? PaddingId { get; }

    /// <summary>Whether the model expects BOS before a text.</summary>
    public bool AddBos { get; }

    /// <summary>Whether the model expects EOS after a text. <see cref="Encode(string, bool, bool)"/> leaves that to the caller.</summary>
    public bool AddEos { get; }

    /// <summary>Whether the texts of the tokens are known. If not, what takes or gives text throws <see cref="UnsupportedModelException"/>.</summary>
    public bool HasTexts => _bytes.Length > 0;

    // A token of a name that the file gives, such as "mask"; null if it gives none.
    internal int? NamedId(string name) => _vocabulary.SpecialId($"tokenizer.ggml.{name}_token_id");

    /// <summary>Reads the tokenizer of a model file.</summary>
    /// <param name="file">The file; not used after the call.</param>
    /// <param name="logger">Receives warnings about metadata that is legal but not fully understood.</param>
    /// <exception cref="ModelLoadException">The tokenizer's metadata is missing or contradicts itself.</exception>
    /// <exception cref="UnsupportedModelException">The tokenizer's kind is not implemented.</exception>
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

    private static Tokenizer Read(GgufFile file, ILogger? logger)
    {
        string model = file.GetString("tokenizer.ggml.model") ?? throw (file.GetInteger("split.no") > 0
            ? Vocabulary.Bad($"this is part {file.GetInteger("split.no") + 1} of {file.GetInteger("split.count")} of a split model; give the first part, which has the tokenizer")
            : Vocabulary.Bad("there is no string tokenizer.ggml.model"));
        return model switch
        {
            "gpt2" => new BytePairTokenizer(new Vocabulary(file), logger ?? NullLogger.Instance),
            "llama" => new SentencePieceTokenizer(new Vocabulary(file), logger ?? NullLogger.Instance),
            "no_vocab" => new NoVocabularyTokenizer(Vocabulary.WithoutTexts(file)),
            _ => throw new UnsupportedModelException(
                $"tokenizer.ggml.model is '{model}', which is not implemented; supported: 'gpt2' (byte-level BPE), 'llama' (SentencePiece), 'no_vocab'"),
        };
    }

    /// <summary>The ids of a text.</summary>
    /// <param name="text">Any text. Unpaired surrogates are encoded as U+FFFD. What has no token, not even of its bytes, is
    /// left out (byte-level BPE) or becomes the unknown token (SentencePiece).</param>
    /// <param name="addBos">Whether to put BOS first; without effect if the vocabulary has none.</param>
    /// <param name="parseSpecial">Whether names of control tokens in the text become these tokens. Leave it off for
    /// text from users. User-defined tokens are always recognized.</param>
    /// <exception cref="UnsupportedModelException">The file has no vocabulary.</exception>
    public int[] Encode(string text, bool addBos, bool parseSpecial)
    {
        ArgumentNullException.ThrowIfNull(text);
        return Encode(new PromptText(text), addBos, parseSpecial);
    }

    /// <summary>The text of tokens. Bytes that are not UTF-8, such as part of a character, become U+FFFD.</summary>
    /// <inheritdoc cref="DecodeBytes"/>
    public string Decode(ReadOnlySpan<int> ids, bool special = false) => Encoding.UTF8.GetString(DecodeBytes(ids, special));

    /// <summary>The UTF-8 text of tokens, as <see cref="Encode(string, bool, bool)"/> took it.</summary>
    /// <param name="ids">Token ids of a text from its start: the space that SentencePiece puts before a text is left out.
    /// The continuation of a text, whose first space counts, is for <see cref="StreamingTokenDecoder"/>.</param>
    /// <param name="special">Whether control tokens appear as their names; otherwise they have no text.</param>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such id.</exception>
    public byte[] DecodeBytes(ReadOnlySpan<int> ids, bool special = false)
    {
        var text = new ArrayBufferWriter<byte>(ids.Length * 4 + 1);
        bool prefixed = AddsSpacePrefix; // the next text has a space of ours before it
        foreach (int id in ids)
        {
            ReadOnlySpan<byte> bytes = GetBytes(id, special).Span;
            bool isCut = IsCutOut(id);
            text.Write(prefixed && !isCut && bytes is [(byte)' ', ..] ? bytes[1..] : bytes);
            prefixed = AddsSpacePrefix && (isCut || (prefixed && bytes.IsEmpty));
        }

        return text.WrittenSpan.ToArray();
    }

    /// <summary>The bytes a token stands for, possibly a part of a UTF-8 character.</summary>
    /// <param name="id">Token id.</param>
    /// <param name="special">Whether a control token gives its name; otherwise it has no bytes.</param>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such id.</exception>
    public ReadOnlyMemory<byte> GetBytes(int id, bool special = false)
    {
        CheckId(id);
        return !special && _vocabulary.IsSpecial(id) ? default : _bytes[id];
    }

    /// <summary>The vocabulary's entry as the file spells it (a space is U+0120 in byte-level BPE, U+2581 in SentencePiece).</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such id.</exception>
    public string GetText(int id)
    {
        CheckId(id);
        return _vocabulary.Texts[id];
    }

    /// <summary>Whether a token controls the model and is not text.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The vocabulary has no such id.</exception>
    public bool IsControl(int id)
    {
        CheckId(id);
        return _vocabulary.Types[id] == TokenType.Control;
    }

    /// <summary>
    /// Whether generation stops at a token: EOS, EOT and EOM of the file, and special tokens of a name that is known to end something, such as
    /// &lt;|im_end|&gt; and &lt;|eot_id|&gt;. False for ids the vocabulary does not have.
    /// </summary>
    public bool IsEndOfGeneration(int id) => _ends.Contains(id);

    /// <summary>The tokens whose text has one of some texts in it.</summary>
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

    /// <summary>Whether a space is put before a text: at its start, and after tokens that were cut out of it.</summary>
    private protected virtual bool AddsSpacePrefix => false;

    /// <summary>Adds the ids of a text that holds no special tokens.</summary>
    /// <param name="text">The text.</param>
    /// <param name="isStart">Whether it stands at the start or behind a special token, and not behind bytes that are no text.</param>
    /// <param name="ids">The ids so far.</param>
    private protected abstract void EncodeFragment(string text, bool isStart, List<int> ids);

    /// <summary>Cuts special tokens out of a text. The longest one cuts the whole text before the next is looked for.</summary>
    /// <returns>In order: a special token's id, or -1 and a part between special tokens.</returns>
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

    /// <summary>What kind of token an id is.</summary>
    public LLamaTokenAttr AttributesOf(int id) => !HasTexts || (uint)id >= (uint)VocabularySize ? LLamaTokenAttr.Undefined : _vocabulary.Types[id] switch
    {
        TokenType.Unknown => LLamaTokenAttr.Unknown,
        TokenType.Control => LLamaTokenAttr.Control,
        TokenType.UserDefined => LLamaTokenAttr.UserDefined,
        TokenType.Unused => LLamaTokenAttr.Unused,
        TokenType.Byte => LLamaTokenAttr.Byte,
        _ => LLamaTokenAttr.Normal,
    };

    /// <summary>The score of an id; 0 where the vocabulary has none.</summary>
    public virtual float ScoreOf(int id) => 0;

    private bool IsCutOut(int id) => _vocabulary.IsSpecial(id) || _vocabulary.Types[id] == TokenType.UserDefined;

    private void CheckTexts()
    {
        if (!HasTexts)
        {
            throw new UnsupportedModelException(
                "tokenizer.ggml.model is 'no_vocab': this file carries no vocabulary, so text cannot be encoded or decoded; " +
                "give the model token ids");
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
