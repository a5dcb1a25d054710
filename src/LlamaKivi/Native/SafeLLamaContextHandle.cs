using LlamaKivi.Tokenization;

namespace LlamaKivi.Native;

/// <summary>What sampling reads of a context. A view: the context owns the memory.</summary>
public sealed class SafeLLamaContextHandle
{
    internal SafeLLamaContextHandle(ContextHandle handle) => Handle = handle;

    /// <summary>The length of a row of logits.</summary>
    public int VocabCount => Handle.VocabularySize;

    internal ContextHandle Handle { get; }

    // The vocabulary; null: not known.
    internal Tokenizer? Tokenizer { get; init; }

    // Tokens that end a text; null: not known.
    internal int[]? EndTokens { get; init; }

    // The token of a line break; null: not known.
    internal int? NewlineToken { get; init; }

    /// <summary>The logits of batch token <paramref name="i"/> of the last decode, one per vocabulary token.</summary>
    /// <remarks>Engine memory: use it only until the context decodes again or is disposed of.</remarks>
    /// <exception cref="ArgumentException">Logits were not asked for at this index.</exception>
    public Span<float> GetLogitsIth(int i) => Handle.Logits(i);

    /// <summary>The embedding of batch token <paramref name="i"/> of the last decode: its last hidden state after the output norm.</summary>
    /// <remarks>Engine memory, as with <see cref="GetLogitsIth"/>. For contexts with Embeddings.</remarks>
    /// <exception cref="ArgumentException">It was not asked for at this index, or the context gives logits.</exception>
    public Span<float> GetEmbeddingsIth(int i) => Handle.Embedding(i);
}
