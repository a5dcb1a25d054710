using System.Text;
using LlamaKivi.Exceptions;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Native;

/// <summary>What can be asked of a model. A view: the weights own the memory.</summary>
public sealed class SafeLlamaModelHandle
{
    internal SafeLlamaModelHandle(LLamaWeights weights)
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
    public string Description => $"{Weights.Model.Description.Architecture} {ParameterCount / 1e6:F1}M {Weights.Model.Description.WeightType}";

    /// <summary>The vocabulary.</summary>
    public Vocabulary Vocab { get; }

    internal LLamaWeights Weights { get; }

    /// <summary>Cuts a text into tokens.</summary>
    public LLamaToken[] Tokenize(string text, bool addBos, bool special, Encoding encoding) => Weights.Tokenize(text, addBos, special, encoding);

    /// <summary>A chat template of the file, in the Jinja language.</summary>
    /// <param name="name">Null: the default one.</param>
    /// <param name="strict">True: the template must be there. False: where there is none of the name, the default.</param>
    /// <returns>Null if there is none, and that is allowed.</returns>
    /// <exception cref="TemplateNotFoundException">The file has no template, or none of the name.</exception>
    public string? GetTemplate(string? name = null, bool strict = true)
    {
        const string Key = "tokenizer.chat_template";
        string? named = name is null ? null : Weights.Model.Gguf.GetString($"{Key}.{name}");
        return named
            ?? (name is null || !strict ? Weights.Model.Gguf.GetString(Key) : null)
            ?? (strict ? throw new TemplateNotFoundException(name ?? TemplateNotFoundException.Default) : null);
    }

    /// <summary>The file's metadata as text; arrays are left out.</summary>
    public IReadOnlyDictionary<string, string> ReadMetadata() => Weights.Metadata;

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
