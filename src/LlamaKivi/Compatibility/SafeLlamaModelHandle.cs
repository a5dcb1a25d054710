using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Exceptions;
using LlamaKivi.Templates;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Native;

/// <summary>What can be asked of a model. A view: the weights own the memory.</summary>
public sealed class SafeLlamaModelHandle
{
    private static readonly ConditionalWeakTable<LLamaWeights, SafeLlamaModelHandle> Views = [];

    private SafeLlamaModelHandle(LLamaWeights weights)
    {
        Weights = weights;
        Vocab = new Vocabulary(weights.Tokenizer);
    }

    /// <summary>Tokens the model was trained to handle at once.</summary>
    public int ContextSize => Weights.ContextSize;

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Weights.EmbeddingSize;

    /// <summary>Bytes of the weights.</summary>
    public ulong SizeInBytes => Weights.SizeInBytes;

    /// <summary>Weights.</summary>
    public ulong ParameterCount => Weights.ParameterCount;

    /// <summary>Transformer layers.</summary>
    public int LayerCount => Weights.Model.Description.LayerCount;

    /// <summary>Query heads.</summary>
    public int HeadCount => Weights.Model.Description.HeadCount;

    /// <summary>KV heads.</summary>
    public int KVHeadCount => Weights.Model.Description.KvHeadCount;

    /// <summary>Architecture, size and weight type in a line.</summary>
    public string Description =>
        string.Create(CultureInfo.InvariantCulture, $"{Weights.Model.Description.Architecture} {ParameterCount / 1e6:F1}M {Weights.Model.Description.WeightType}");

    /// <summary>Metadata entries of the file.</summary>
    public int MetadataCount => Weights.Model.Gguf.Entries.Count;

    /// <summary>How positions are rotated.</summary>
    public LLamaRopeType RopeType => LLamaRopeType.Norm;

    /// <summary>Base of the rotary position embedding.</summary>
    public float RopeFrequency => Weights.Model.Description.RopeFrequencyBase;

    /// <summary>Whether there is an encoder: no model of the engine has one.</summary>
    public bool HasEncoder => false;

    /// <summary>Whether there is a decoder: yes.</summary>
    public bool HasDecoder => true;

    /// <summary>Whether the model is recurrent: no model of the engine is.</summary>
    public bool IsRecurrent => false;

    /// <summary>Whether the weights were disposed of. Contexts that use them keep them loaded.</summary>
    public bool IsClosed => Weights.Model.IsDisposed;

    /// <summary>The vocabulary.</summary>
    public Vocabulary Vocab { get; }

    internal LLamaWeights Weights { get; }

    /// <summary>The view of a model: one for each, which the model does not know.</summary>
    internal static SafeLlamaModelHandle Of(LLamaWeights weights) => Views.GetValue(weights, static weights => new SafeLlamaModelHandle(weights));

    /// <summary>Cuts a text into tokens.</summary>
    public LLamaToken[] Tokenize(string text, bool addBos, bool special, Encoding encoding) => Weights.Tokenize(text, addBos, special, encoding);

    /// <summary>A chat template of the file, in the Jinja language.</summary>
    /// <param name="name">Null: the default one.</param>
    /// <param name="strict">True: the template must be there. False: where there is none of the name, the default.</param>
    /// <returns>Null if there is none, and that is allowed.</returns>
    /// <exception cref="TemplateNotFoundException">The file has no template, or none of the name.</exception>
    public string? GetTemplate(string? name = null, bool strict = true) => ModelTemplate.Find(Weights, name, strict);

    /// <summary>The file's metadata as text; arrays are left out.</summary>
    public IReadOnlyDictionary<string, string> ReadMetadata() => Weights.Metadata;

    /// <summary>A metadata value as UTF-8 text; null if there is none of that key.</summary>
    public Memory<byte>? MetadataValueByKey(string key) =>
        Weights.Metadata.TryGetValue(key, out string? value) ? Encoding.UTF8.GetBytes(value).AsMemory() : (Memory<byte>?)null;

    /// <summary>The key of a metadata entry as UTF-8 text; null if there is none of that number.</summary>
    public Memory<byte>? MetadataKeyByIndex(int index) =>
        index >= 0 && index < MetadataCount ? Encoding.UTF8.GetBytes(Weights.Model.Gguf.Entries[index].Key).AsMemory() : (Memory<byte>?)null;

    /// <summary>The value of a metadata entry as UTF-8 text; null if there is none of that number, or it is an array.</summary>
    public Memory<byte>? MetadataValueByIndex(int index) =>
        index >= 0 && index < MetadataCount ? MetadataValueByKey(Weights.Model.Gguf.Entries[index].Key) : null;

    /// <summary>Writes a token's text.</summary>
    /// <param name="token">The token.</param>
    /// <param name="dest">Where to; what does not fit is left out.</param>
    /// <param name="lstrip">Leading blanks to leave out, at most.</param>
    /// <param name="special">Whether a control token gives its name; otherwise it has no text.</param>
    /// <returns>Bytes the text has.</returns>
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

        /// <summary>Tokens.</summary>
        public int Count => _tokenizer.VocabularySize;

        /// <summary>Beginning of a text; null if there is none.</summary>
        public LLamaToken? BOS => _tokenizer.BosId;

        /// <summary>End of a text; null if there is none.</summary>
        public LLamaToken? EOS => _tokenizer.EosId;

        /// <summary>End of a turn: what the file says, or a special token of a known name; null if there is none.</summary>
        public LLamaToken? EOT => _tokenizer.EotId;

        /// <summary>How the vocabulary cuts text.</summary>
        public LLamaVocabType Type => _tokenizer switch
        {
            SentencePieceTokenizer => LLamaVocabType.SentencePiece,
            BytePairTokenizer => LLamaVocabType.BytePairEncoding,
            _ => LLamaVocabType.None,
        };

        /// <summary>Stands for text to be found; null if the file names none.</summary>
        public LLamaToken? Mask => _tokenizer.NamedId("mask");

        /// <summary>Separates texts; null if the file names none.</summary>
        public LLamaToken? SEP => _tokenizer.NamedId("seperator");

        /// <summary>Comes before the text before a gap; null if the file names none.</summary>
        public LLamaToken? InfillPrefix => _tokenizer.NamedId("fim_pre") ?? _tokenizer.NamedId("prefix");

        /// <summary>Comes before the text of a gap; null if the file names none.</summary>
        public LLamaToken? InfillMiddle => _tokenizer.NamedId("fim_mid") ?? _tokenizer.NamedId("middle");

        /// <summary>Comes before the text behind a gap; null if the file names none.</summary>
        public LLamaToken? InfillSuffix => _tokenizer.NamedId("fim_suf") ?? _tokenizer.NamedId("suffix");

        /// <summary>Pads a text with a gap; null if the file names none.</summary>
        public LLamaToken? InfillPad => _tokenizer.NamedId("fim_pad");

        /// <summary>Names a repository; null if the file names none.</summary>
        public LLamaToken? InfillRep => _tokenizer.NamedId("fim_rep");

        /// <summary>Separates files; null if the file names none.</summary>
        public LLamaToken? InfillSep => _tokenizer.NamedId("fim_sep");

        /// <summary>Begins what a decoder writes; no model of the engine has one.</summary>
        public LLamaToken? DecoderStartToken => null;

        /// <summary>Padding; null if the file names none.</summary>
        public LLamaToken? Pad => _tokenizer.PaddingId;

        /// <summary>The line break; null if it is no single token.</summary>
        public LLamaToken? Newline => _tokenizer.NewlineId;

        /// <summary>Whether the model expects BOS before a text.</summary>
        public bool ShouldAddBOS => _tokenizer.AddBos;

        /// <summary>Whether the model expects EOS after a text.</summary>
        public bool ShouldAddEOS => _tokenizer.AddEos;

        internal Tokenizer Tokenizer => _tokenizer;

        /// <summary>The text of a token; null for <see cref="LLamaToken.InvalidToken"/>.</summary>
        /// <param name="token">The token.</param>
        /// <param name="isSpecialToken">Whether a control token gives its name; otherwise it has no text.</param>
        public string? LLamaTokenToString(LLamaToken? token, bool isSpecialToken) =>
            token is not { } t || t == LLamaToken.InvalidToken ? null : Encoding.UTF8.GetString(_tokenizer.GetBytes((int)t, isSpecialToken).Span);
    }
}
