using LlamaKivi.Abstractions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>A model's working state: the KV cache and the scratch memory. One thread at a time may use it.</summary>
public sealed partial class LLamaContext : IDisposable
{
    /// <summary>Creates a context.</summary>
    /// <exception cref="ArgumentException">A parameter does not fit; the message says what would.</exception>
    /// <exception cref="NativeOutOfMemoryException">There is not enough memory.</exception>
    public LLamaContext(LLamaWeights model, IContextParams @params, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(@params);
        Options = ToOptions(model, @params);
        Weights = model;
        Params = @params;
        Handle = ContextHandle.Create(model.Model, Options);
        NativeHandle = new SafeLLamaContextHandle(Handle);
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

    /// <summary>What sampling pipelines read logits from.</summary>
    public SafeLLamaContextHandle NativeHandle { get; }

    /// <summary>Tokens the cache holds over all sequences.</summary>
    public uint ContextSize => (uint)Options.ContextSize;

    /// <summary>Most tokens handed to the engine in one call.</summary>
    public uint BatchSize => Params.BatchSize;

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Weights.EmbeddingSize;

    /// <summary>What the KV cache holds now.</summary>
    public CacheUsage KvCacheUsage => Handle.Usage;

    private ContextOptions Options { get; }

    /// <summary>Cuts a text into tokens; see <see cref="LLamaWeights.Tokenize"/>.</summary>
    public LLamaToken[] Tokenize(string text, bool addBos = true, bool special = false) => Weights.Tokenize(text, addBos, special);

    /// <summary>Joins tokens to a text; bytes that are not UTF-8 become U+FFFD.</summary>
    public string DeTokenize(IReadOnlyList<LLamaToken> tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        return Weights.Tokenizer.Decode([.. tokens.Select(token => (int)token)]);
    }

    /// <summary>Appends a batch's tokens to their sequences and computes the logits asked for.</summary>
    /// <returns><see cref="DecodeResult.NoKvSlot"/> if the cache has no room; the context is then as it was.</returns>
    public DecodeResult Decode(LLamaBatch batch) => Decode(batch, CancellationToken.None);

    /// <summary>Does what <see cref="Decode(LLamaBatch)"/> does, on another thread.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; the context is as it was.</exception>
    public Task<DecodeResult> DecodeAsync(LLamaBatch batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Decode(batch, cancellationToken), cancellationToken);

    /// <summary>Frees the cache; the model goes on.</summary>
    public void Dispose() => Handle.Dispose();

    internal static ContextOptions ToOptions(LLamaWeights model, IContextParams @params)
    {
        @params.KvCache.Validate();
        ArgumentOutOfRangeException.ThrowIfZero(@params.BatchSize, "BatchSize");
        if (@params.ContextSize == 0)
        {
            throw new ArgumentException("ContextSize is 0; give the tokens the context shall hold, or null for what the model was trained for.", nameof(@params));
        }

        return new ContextOptions
        {
            ContextSize = checked((int)(@params.ContextSize ?? (uint)model.ContextSize)),
            MaxSequences = checked((int)@params.SeqMax),
            MicroBatchSize = checked((int)@params.UBatchSize),
            Threads = @params.Threads ?? 0,
            KeyType = @params.KvCache.TypeK,
            ValueType = @params.KvCache.TypeV,
            GroupSize = @params.KvCache.Group,
            ResidualLength = @params.KvCache.Residual,
            SinkTokens = @params.KvCache.Sinks ?? -1,
        };
    }

    private DecodeResult Decode(LLamaBatch batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        try
        {
            Handle.Decode(batch.Tokens, batch.SequenceIds, batch.Positions, batch.Outputs, cancellationToken);
            return DecodeResult.Ok;
        }
        catch (KvCacheFullException)
        {
            return DecodeResult.NoKvSlot;
        }
    }
}

/// <summary>Sampling from a context.</summary>
public static class ISamplingPipelineExtensions
{
    /// <summary>Chooses a token from the logits of batch token <paramref name="index"/>.</summary>
    public static LLamaToken Sample(this ISamplingPipeline pipe, LLamaContext ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(pipe);
        ArgumentNullException.ThrowIfNull(ctx);
        return pipe.Sample(ctx.NativeHandle, index);
    }
}
