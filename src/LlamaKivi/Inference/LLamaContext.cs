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
    // Sequences a context has at least. Beyond SeqMax they take memory with their first token.
    private const uint DefaultSequences = 256;

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
        Options = ToOptions((uint)model.ContextSize, @params, cache) with { Embeddings = embeddings };
        model.CheckRope(@params);
        Weights = model;
        Params = @params;
        Handle = ContextHandle.Create(model.Model, Options);
        Handle.Owner = typeof(LLamaContext).FullName!;
        if (fallback is not null)
        {
            NativeLog.Write(lk_log_level.LK_LOG_WARNING, fallback);
            if (logger is not null)
            {
                Log.Engine(logger, LogLevel.Warning, fallback);
            }
        }

        if (logger is not null)
        {
            Log.ContextCreated(logger, Options.ContextSize, NativeEngine.CacheTypeName(Options.KeyType), NativeEngine.CacheTypeName(Options.ValueType));
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

    internal static ContextOptions ToOptions(uint trainedContextSize, IContextParams @params, KvCacheParams cache)
    {
        cache.Validate();
        ArgumentOutOfRangeException.ThrowIfZero(@params.BatchSize, "BatchSize");
        if (@params.AttentionType == LLamaAttentionType.NonCausal)
        {
            throw new NotSupportedException("AttentionType is NonCausal, which is not implemented. Leave it unset.");
        }

        return new ContextOptions
        {
            ContextSize = Int(@params.ContextSize is > 0 ? @params.ContextSize.Value : trainedContextSize, nameof(@params.ContextSize)),
            MaxSequences = Int(Math.Max(@params.SeqMax, DefaultSequences), nameof(@params.SeqMax)),
            ReadySequences = Int(Math.Max(@params.SeqMax, 1), nameof(@params.SeqMax)),
            MicroBatchSize = Int(@params.UBatchSize, nameof(@params.UBatchSize)),
            Threads = @params.Threads ?? 0,
            KeyType = CacheType(@params.TypeK, nameof(@params.TypeK)) ?? cache.TypeK,
            ValueType = CacheType(@params.TypeV, nameof(@params.TypeV)) ?? cache.TypeV,
            GroupSize = cache.Group,
            ResidualLength = cache.Residual,
            SinkTokens = cache.Sinks ?? -1,
        };
    }

    // What is too large for the engine it says itself; this is what it could not be told.
    private static int Int(uint value, string name) =>
        value <= int.MaxValue ? (int)value : throw new ArgumentOutOfRangeException(name, $"{name} is {value}; it must be at most {int.MaxValue}.");

    private static lk_cache_type? CacheType(GGMLType? type, string name) => type switch
    {
        null => null,
        GGMLType.GGML_TYPE_F16 => lk_cache_type.LK_CACHE_F16,
        GGMLType.GGML_TYPE_Q8_0 => lk_cache_type.LK_CACHE_Q8_0,
        GGMLType.GGML_TYPE_Q4_0 => lk_cache_type.LK_CACHE_Q4_0,
        _ => throw new ArgumentException($"{name} is {type}; a KV cache is of F16, Q8_0 or Q4_0, or of a type of KvCache ({string.Join(", ", KvCacheTypes.Names)})."),
    };

    // The calls of a method are one.
    private ContextCall Enter([CallerMemberName] string method = "") => Handle.Enter($"{nameof(LLamaContext)}.{method}");
}
