using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>A model's working state: the KV cache and the scratch memory. It does one thing at a time.</summary>
/// <remarks>
/// What comes second throws <see cref="ContextBusyException"/>, which says what runs. An executor's stream, prefill or Infer has the context from its first token to its end; in
/// the body of a loop over a stream, and from other threads between two of its tokens, the cache's usage, states and logits can be read and the threads set, and nothing
/// else be changed. <see cref="Dispose"/> is let in at any time.
/// </remarks>
public sealed partial class LLamaContext : IDisposable
{
    /// <summary>Creates a context.</summary>
    /// <exception cref="ArgumentException">A parameter does not fit; the message says what would.</exception>
    /// <exception cref="NativeOutOfMemoryException">There is not enough memory.</exception>
    public LLamaContext(LLamaWeights model, IContextParams @params, ILogger? logger = null)
        : this(model, @params, logger, embeddings: @params?.Embeddings ?? false)
    {
    }

    internal LLamaContext(LLamaWeights model, IContextParams @params, ILogger? logger, bool embeddings)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(@params);
        KvCacheParams cache = KvCacheFallback.Of(model.Model.Gguf, @params, out string? fallback);
        Options = ContextOptionsFactory.Create(@params, cache, (uint)model.ContextSize) with { Embeddings = embeddings };
        model.CheckRope(@params);
        Weights = model;
        Params = @params;
        Handle = ContextHandle.Create(model.Model, Options);
        Handle.Owner = typeof(LLamaContext).FullName!;
        if (fallback is not null)
        {
            NativeLog.Write(EngineLogLevel.Warning, fallback);
            if (logger is not null)
            {
                Log.Engine(logger, LogLevel.Warning, fallback);
            }
        }

        if (logger is not null)
        {
            Log.ContextCreated(logger, Options.ContextSize, Options.KeyType.ToString(), Options.ValueType.ToString());
        }
    }

    /// <summary>The model.</summary>
    public LLamaWeights Weights { get; }

    /// <summary>What the context was created with.</summary>
    public IContextParams Params { get; }

    /// <summary>The native context.</summary>
    public ContextHandle Handle { get; }

    /// <summary>Tokens the cache holds over all sequences.</summary>
    public uint ContextSize => (uint)Options.ContextSize;

    /// <summary>Most tokens handed to the engine in one call.</summary>
    public uint BatchSize => Math.Min(Params.BatchSize, ContextSize);

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Weights.EmbeddingSize;

    /// <summary>Text encoding: UTF-8.</summary>
    public Encoding Encoding => Params.Encoding;

    /// <summary>Threads; 0: one per processor. The same for reading and for writing. Set it between two steps of a stream, not while a prompt is read.</summary>
    /// <exception cref="ContextBusyException">The context computes.</exception>
    public int GenerationThreads
    {
        get;
        set
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            Handle.SetThreads(value);
            field = value;
        }
    }

    /// <summary>The same as <see cref="GenerationThreads"/>.</summary>
    public int BatchThreads
    {
        get => GenerationThreads;
        set => GenerationThreads = value;
    }

    /// <summary>What the KV cache holds now.</summary>
    public CacheUsage KvCacheUsage => Handle.Usage;

    // Whose text sequence 0 holds; null: nobody's that would have to read it again.
    internal CachedText? SequenceHolder { get; set; }

    internal int MaxSequences => Options.MaxSequences;

    private ContextOptions Options { get; }

    /// <summary>Cuts a text into tokens; see <see cref="LLamaWeights.Tokenize(string, bool, bool)"/>.</summary>
    public LLamaToken[] Tokenize(string text, bool addBos = true, bool special = false) => Weights.Tokenize(text, addBos, special);

    /// <summary>Joins tokens to a text; bytes that are not UTF-8 become U+FFFD.</summary>
    public string DeTokenize(IReadOnlyList<LLamaToken> tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        return Weights.Tokenizer.Decode([.. tokens.Select(token => (int)token)]);
    }

    /// <summary>Frees the cache; the model goes on. What computes is cancelled, and what waits for the context ends: with <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose() => Handle.Dispose();

    // The calls of a method are one.
    private ContextCall Enter([CallerMemberName] string method = "") => Handle.Enter($"{nameof(LLamaContext)}.{method}");
}
