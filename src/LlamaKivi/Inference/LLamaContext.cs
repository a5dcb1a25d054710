using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Working state of a model: KV cache and scratch memory. A context runs one operation at a time.</summary>
/// <remarks>
/// A concurrent operation throws <see cref="ContextBusyException"/>, which names the running one. An executor's stream, prefill or Infer occupies the context from its first token to its end.
/// Between two tokens of a stream, in its loop body or from other threads, cache usage, states and logits can be read and threads set; nothing else can be changed.
/// <see cref="Dispose"/> is always allowed.
/// </remarks>
public sealed partial class LLamaContext : IDisposable
{
    /// <summary>Creates a context.</summary>
    /// <exception cref="ArgumentException">A parameter does not fit the model; the message gives valid values.</exception>
    /// <exception cref="NativeOutOfMemoryException">Not enough memory.</exception>
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

    /// <summary>Parameters the context was created with.</summary>
    public IContextParams Params { get; }

    /// <summary>The native context.</summary>
    public ContextHandle Handle { get; }

    /// <summary>KV cache capacity in tokens, shared by all sequences.</summary>
    public uint ContextSize => (uint)Options.ContextSize;

    /// <summary>Maximum number of tokens per batch.</summary>
    public uint BatchSize => Math.Min(Params.BatchSize, ContextSize);

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingSize => Weights.EmbeddingSize;

    /// <summary>Number of threads for prefill and decode; 0: one per processor. May be set between two tokens of a stream, not during prefill.</summary>
    /// <exception cref="ContextBusyException">The context is computing.</exception>
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

    /// <summary>Same as <see cref="GenerationThreads"/>.</summary>
    public int BatchThreads
    {
        get => GenerationThreads;
        set => GenerationThreads = value;
    }

    /// <summary>Current usage of the KV cache.</summary>
    public CacheUsage KvCacheUsage => Handle.Usage;

    // The text in sequence 0; null: no text that would have to be decoded again.
    internal CachedText? SequenceHolder { get; set; }

    internal int MaxSequences => Options.MaxSequences;

    internal ContextOptions Options { get; }

    /// <summary>Tokenizes a text; see <see cref="LLamaWeights.Tokenize(string, bool, bool)"/>.</summary>
    public LLamaToken[] Tokenize(string text, bool addBos = true, bool special = false) => Weights.Tokenize(text, addBos, special);

    /// <summary>Converts tokens to text; invalid UTF-8 becomes U+FFFD.</summary>
    public string DeTokenize(IReadOnlyList<LLamaToken> tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        return Weights.Tokenizer.Decode([.. tokens.Select(token => (int)token)]);
    }

    /// <summary>Frees the cache; the model stays loaded. A running computation is cancelled; operations waiting for the context throw <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose() => Handle.Dispose();

    // All engine calls of one method count as one operation.
    private ContextCall Enter([CallerMemberName] string method = "") => Handle.Enter($"{nameof(LLamaContext)}.{method}");
}
