using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Exceptions;
using LlamaKivi.Templates;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Native;

/// <summary>Low-level view of a model. The weights own the memory.</summary>
public sealed class SafeLlamaModelHandle
{
    private static readonly ConditionalWeakTable<LLamaWeights, SafeLlamaModelHandle> Views = [];

    private SafeLlamaModelHandle(LLamaWeights weights)
    {
        Weights = weights;
        Vocab = new Vocabulary(weights.Tokenizer);
    }

    /// <summary>Context size the model was trained with, in tokens.</summary>
    public int ContextSize => Weights.ContextSize;

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingSize => Weights.EmbeddingSize;

    /// <summary>Size of the weights in bytes.</summary>
    public ulong SizeInBytes => Weights.SizeInBytes;

    /// <summary>Number of weights.</summary>
    public ulong ParameterCount => Weights.ParameterCount;

    /// <summary>Number of transformer layers.</summary>
    public int LayerCount => Weights.Model.Description.LayerCount;

    /// <summary>Number of query heads.</summary>
    public int HeadCount => Weights.Model.Description.HeadCount;

    /// <summary>Number of KV heads.</summary>
    public int KVHeadCount => Weights.Model.Description.KvHeadCount;

    /// <summary>Architecture, parameter count and weight type on one line.</summary>
    public string Description =>
        string.Create(CultureInfo.InvariantCulture, $"{Weights.Model.Description.Architecture} {ParameterCount / 1e6:F1}M {Weights.Model.Description.WeightType}");

    /// <summary>Number of metadata entries in the file.</summary>
    public int MetadataCount => Weights.Model.Gguf.Entries.Count;

    /// <summary>RoPE type.</summary>
    public LLamaRopeType RopeType => LLamaRopeType.Norm;

    /// <summary>RoPE frequency base.</summary>
    public float RopeFrequency => Weights.Model.Description.RopeFrequencyBase;

    /// <summary>Type of most weights, according to the file; <see cref="LLamaFtype.GUESSED"/> if the file does not state it.</summary>
    public LLamaFtype FileType => Weights.Model.Gguf.GetValue("general.file_type") is { } value and not (string or bool)
        ? (LLamaFtype)Convert.ToInt32(value, CultureInfo.InvariantCulture)
        : LLamaFtype.GUESSED;

    /// <summary>Number of layers that predict several tokens: always 0.</summary>
    public int LayerCountMtp => 0;

    /// <summary>Whether the model is a diffusion model: always false.</summary>
    public bool IsDiffusion => false;

    /// <summary>Whether the model has an encoder: always false.</summary>
    public bool HasEncoder => false;

    /// <summary>Whether the model has a decoder: always true.</summary>
    public bool HasDecoder => true;

    /// <summary>Whether the model is recurrent: always false.</summary>
    public bool IsRecurrent => false;

    /// <summary>Whether the weights are disposed. Contexts that use them keep them in memory.</summary>
    public bool IsClosed => Weights.Model.IsDisposed;

    /// <summary>The vocabulary.</summary>
    public Vocabulary Vocab { get; }

    internal LLamaWeights Weights { get; }

    /// <summary>The view of a model. Each model has one, held outside the model.</summary>
    internal static SafeLlamaModelHandle Of(LLamaWeights weights) => Views.GetValue(weights, static weights => new SafeLlamaModelHandle(weights));

    /// <summary>Tokenizes a text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="addBos">Whether to prepend the beginning-of-sequence token, if the model uses one.</param>
    /// <param name="special">Whether special tokens spelled out in the text are parsed as those tokens.</param>
    /// <param name="encoding">Accepted and ignored: models use UTF-8.</param>
    public LLamaToken[] Tokenize(string text, bool addBos, bool special, [AcceptedAndIgnored] Encoding encoding) => Weights.Tokenize(text, addBos, special, encoding);

    /// <summary>A chat template of the file, in Jinja.</summary>
    /// <param name="name">Name of the template; null: the default template.</param>
    /// <param name="strict">Whether a missing template is an error. False: falls back to the default template.</param>
    /// <returns>The template; null if none was found and <paramref name="strict"/> is false.</returns>
    /// <exception cref="TemplateNotFoundException">The file has no template of this name.</exception>
    public string? GetTemplate(string? name = null, bool strict = true) => ModelTemplate.Find(Weights, name, strict);

    /// <summary>Metadata of the file as strings, without arrays.</summary>
    public IReadOnlyDictionary<string, string> ReadMetadata() => Weights.Metadata;

    /// <summary>Metadata value of a key, as UTF-8; null if the key is missing.</summary>
    public Memory<byte>? MetadataValueByKey(string key) =>
        Weights.Metadata.TryGetValue(key, out string? value) ? Encoding.UTF8.GetBytes(value).AsMemory() : (Memory<byte>?)null;

    /// <summary>Key of a metadata entry, as UTF-8; null if the index is out of range.</summary>
    public Memory<byte>? MetadataKeyByIndex(int index) =>
        index >= 0 && index < MetadataCount ? Encoding.UTF8.GetBytes(Weights.Model.Gguf.Entries[index].Key).AsMemory() : (Memory<byte>?)null;

    /// <summary>Value of a metadata entry, as UTF-8; null if the index is out of range or the value is an array.</summary>
    public Memory<byte>? MetadataValueByIndex(int index) =>
        index >= 0 && index < MetadataCount ? MetadataValueByKey(Weights.Model.Gguf.Entries[index].Key) : null;

    /// <summary>Writes a token's UTF-8 text to a buffer.</summary>
    /// <param name="token">The token.</param>
    /// <param name="dest">Destination; text that does not fit is truncated.</param>
    /// <param name="lstrip">Maximum number of leading spaces to remove.</param>
    /// <param name="special">Whether a control token is written as its name instead of nothing.</param>
    /// <returns>Length of the whole text in bytes.</returns>
    public uint TokenToSpan(LLamaToken token, Span<byte> dest, int lstrip = 0, bool special = false)
    {
        ReadOnlySpan<byte> bytes = Weights.Tokenizer.GetBytes((int)token, special).Span;
        while (lstrip-- > 0 && bytes.StartsWith((byte)' '))
        {
            bytes = bytes[1..];
        }

        bytes[..Math.Min(bytes.Length, dest.Length)].CopyTo(dest);
        return (uint)bytes.Length;
    }

    /// <summary>The vocabulary of a model.</summary>
    public sealed class Vocabulary
    {
        private readonly Tokenizer _tokenizer;

        internal Vocabulary(Tokenizer tokenizer) => _tokenizer = tokenizer;

        /// <summary>Number of tokens.</summary>
        public int Count => _tokenizer.VocabularySize;

        /// <summary>Beginning-of-text token; null if there is none.</summary>
        public LLamaToken? BOS => _tokenizer.BosId;

        /// <summary>End-of-text token; null if there is none.</summary>
        public LLamaToken? EOS => _tokenizer.EosId;

        /// <summary>End-of-turn token: from the file's metadata, or a special token with a known name; null if there is none.</summary>
        public LLamaToken? EOT => _tokenizer.EotId;

        /// <summary>Tokenization algorithm.</summary>
        public LLamaVocabType Type => _tokenizer switch
        {
            SentencePieceTokenizer => LLamaVocabType.SentencePiece,
            BytePairTokenizer => LLamaVocabType.BytePairEncoding,
            _ => LLamaVocabType.None,
        };

        /// <summary>Mask token; null if the file names none.</summary>
        public LLamaToken? Mask => _tokenizer.NamedId("mask");

        /// <summary>Separator token between texts; null if the file names none.</summary>
        public LLamaToken? SEP => _tokenizer.NamedId("seperator");

        /// <summary>Fill-in-the-middle token before the prefix; null if the file names none.</summary>
        public LLamaToken? InfillPrefix => _tokenizer.NamedId("fim_pre") ?? _tokenizer.NamedId("prefix");

        /// <summary>Fill-in-the-middle token before the middle; null if the file names none.</summary>
        public LLamaToken? InfillMiddle => _tokenizer.NamedId("fim_mid") ?? _tokenizer.NamedId("middle");

        /// <summary>Fill-in-the-middle token before the suffix; null if the file names none.</summary>
        public LLamaToken? InfillSuffix => _tokenizer.NamedId("fim_suf") ?? _tokenizer.NamedId("suffix");

        /// <summary>Fill-in-the-middle padding token; null if the file names none.</summary>
        public LLamaToken? InfillPad => _tokenizer.NamedId("fim_pad");

        /// <summary>Repository name token; null if the file names none.</summary>
        public LLamaToken? InfillRep => _tokenizer.NamedId("fim_rep");

        /// <summary>File separator token; null if the file names none.</summary>
        public LLamaToken? InfillSep => _tokenizer.NamedId("fim_sep");

        /// <summary>Decoder start token of encoder-decoder models: always null.</summary>
        public LLamaToken? DecoderStartToken => null;

        /// <summary>Padding token; null if the file names none.</summary>
        public LLamaToken? Pad => _tokenizer.PaddingId;

        /// <summary>Line break token; null if a line break is not a single token.</summary>
        public LLamaToken? Newline => _tokenizer.NewlineId;

        /// <summary>Whether the model expects BOS before a text.</summary>
        public bool ShouldAddBOS => _tokenizer.AddBos;

        /// <summary>Whether the model expects EOS after a text.</summary>
        public bool ShouldAddEOS => _tokenizer.AddEos;

        internal Tokenizer Tokenizer => _tokenizer;

        /// <summary>Text of a token; null for <see cref="LLamaToken.InvalidToken"/>.</summary>
        /// <param name="token">The token.</param>
        /// <param name="isSpecialToken">Whether a control token is its name instead of empty text.</param>
        public string? LLamaTokenToString(LLamaToken? token, bool isSpecialToken) =>
            token is not { } t || t == LLamaToken.InvalidToken ? null : Encoding.UTF8.GetString(_tokenizer.GetBytes((int)t, isSpecialToken).Span);
    }
}
