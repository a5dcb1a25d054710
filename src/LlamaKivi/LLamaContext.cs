using System.Runtime.InteropServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>A model's working state: the KV cache and the scratch memory. One thread at a time may use it.</summary>
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
        Options = ToOptions((uint)model.ContextSize, @params) with { Embeddings = embeddings };
        Weights = model;
        Params = @params;
        Handle = ContextHandle.Create(model.Model, Options);
        NativeHandle = new SafeLLamaContextHandle(Handle) { Tokenizer = model.Tokenizer, EndTokens = model.Tokenizer.EndTokens, NewlineToken = model.Tokenizer.NewlineId };
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

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Weights.Vocab;

    /// <summary>Text encoding: UTF-8.</summary>
    public Encoding Encoding => Params.Encoding;

    /// <summary>Threads; 0: one per processor. The same for reading and for writing.</summary>
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

    private ContextOptions Options { get; }

    /// <summary>Cuts a text into tokens; see <see cref="LLamaWeights.Tokenize(string, bool, bool)"/>.</summary>
    public LLamaToken[] Tokenize(string text, bool addBos = true, bool special = false) => Weights.Tokenize(text, addBos, special);

    /// <summary>Joins tokens to a text; bytes that are not UTF-8 become U+FFFD.</summary>
    public string DeTokenize(IReadOnlyList<LLamaToken> tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        return Weights.Tokenizer.Decode([.. tokens.Select(token => (int)token)]);
    }

    /// <summary>Computes the embeddings of a batch's tokens and leaves the sequences as they were. The context must be one with Embeddings.</summary>
    public EncodeResult Encode(LLamaBatch batch) => Encode(batch, CancellationToken.None);

    /// <summary>Does what <see cref="Encode(LLamaBatch)"/> does, on another thread.</summary>
    public Task<EncodeResult> EncodeAsync(LLamaBatch batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Encode(batch, cancellationToken), cancellationToken);

    /// <summary>Appends a batch's tokens to their sequences and computes the logits asked for, or the embeddings in a context with Embeddings.</summary>
    /// <returns><see cref="DecodeResult.NoKvSlot"/> if the cache has no room; the context is then as it was.</returns>
    public DecodeResult Decode(LLamaBatch batch) => Decode(batch, CancellationToken.None);

    /// <summary>Does what <see cref="Decode(LLamaBatch)"/> does, on another thread.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; the context is as it was.</exception>
    public Task<DecodeResult> DecodeAsync(LLamaBatch batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Decode(batch, cancellationToken), cancellationToken);

    /// <summary>Does what <see cref="Decode(LLamaBatch)"/> does with embeddings in the place of tokens.</summary>
    public DecodeResult Decode(LLamaBatchEmbeddings batch) => Decode(batch, CancellationToken.None);

    /// <summary>Does what <see cref="Decode(LLamaBatchEmbeddings)"/> does, on another thread.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; the context is as it was.</exception>
    public Task<DecodeResult> DecodeAsync(LLamaBatchEmbeddings batch, CancellationToken cancellationToken = default) =>
        Task.Run(() => Decode(batch, cancellationToken), cancellationToken);

    /// <summary>Appends tokens to a sequence, as many at a time as <see cref="BatchSize"/> allows.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="id">The sequence.</param>
    /// <param name="batch">Memory to use; after the call it holds the last tokens, the very last with logits.</param>
    /// <param name="n_past">Tokens the sequence has.</param>
    /// <param name="cancellationToken">Stops it; what was decoded by then stays.</param>
    /// <returns>What came of it; the tokens that were not decoded; the tokens the sequence has now.</returns>
    public Task<(DecodeResult, int, int)> DecodeAsync(
        List<LLamaToken> tokens, LLamaSeqId id, LLamaBatch batch, int n_past, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentNullException.ThrowIfNull(batch);
        return Task.Run(
            () =>
            {
                int done = 0;
                while (done < tokens.Count)
                {
                    int n = (int)Math.Min(BatchSize, tokens.Count - done);
                    batch.Clear();
                    batch.AddRange(CollectionsMarshal.AsSpan(tokens).Slice(done, n), n_past, id, logitsLast: done + n == tokens.Count);
                    DecodeResult result = Decode(batch, cancellationToken);
                    if (result != DecodeResult.Ok)
                    {
                        return (result, tokens.Count - done, n_past);
                    }

                    done += n;
                    n_past += n;
                }

                return (DecodeResult.Ok, 0, n_past);
            },
            cancellationToken);
    }

    /// <summary>Frees the cache; the model goes on.</summary>
    public void Dispose() => Handle.Dispose();

    internal static ContextOptions ToOptions(uint trainedContextSize, IContextParams @params)
    {
        @params.KvCache.Validate();
        ArgumentOutOfRangeException.ThrowIfZero(@params.BatchSize, "BatchSize");
        if (@params.ContextSize == 0)
        {
            throw new ArgumentException("ContextSize is 0; give the tokens the context shall hold, or null for what the model was trained for.", nameof(@params));
        }

        RefuseWhatIsNotImplemented(@params);
        return new ContextOptions
        {
            ContextSize = checked((int)(@params.ContextSize ?? trainedContextSize)),
            MaxSequences = checked((int)@params.SeqMax),
            MicroBatchSize = checked((int)@params.UBatchSize),
            Threads = @params.Threads ?? 0,
            KeyType = CacheType(@params.TypeK, nameof(@params.TypeK)) ?? @params.KvCache.TypeK,
            ValueType = CacheType(@params.TypeV, nameof(@params.TypeV)) ?? @params.KvCache.TypeV,
            GroupSize = @params.KvCache.Group,
            ResidualLength = @params.KvCache.Residual,
            SinkTokens = @params.KvCache.Sinks ?? -1,
        };
    }

    private static lk_cache_type? CacheType(GGMLType? type, string name) => type switch
    {
        null => null,
        GGMLType.GGML_TYPE_F16 => lk_cache_type.LK_CACHE_F16,
        GGMLType.GGML_TYPE_Q8_0 => lk_cache_type.LK_CACHE_Q8_0,
        GGMLType.GGML_TYPE_Q4_0 => lk_cache_type.LK_CACHE_Q4_0,
        _ => throw new ArgumentException($"{name} is {type}; a KV cache is of F16, Q8_0 or Q4_0, or of a type of KvCache ({string.Join(", ", KvCacheTypes.Names)})."),
    };

    // What would change results must not be passed over in silence.
    private static void RefuseWhatIsNotImplemented(IContextParams p)
    {
        string? what = (p.RopeFrequencyBase, p.RopeFrequencyScale) is not (null, null) ? "RopeFrequencyBase or RopeFrequencyScale"
            : (p.YarnExtrapolationFactor, p.YarnAttentionFactor, p.YarnBetaFast, p.YarnBetaSlow) is not (null, null, null, null) || p.YarnOriginalContext is not null ? "a YaRN parameter"
            : p.YarnScalingType is not (null or RopeScalingType.Unspecified) ? nameof(p.YarnScalingType)
            : p.AttentionType == LLamaAttentionType.NonCausal ? nameof(p.AttentionType)
            : null;
        if (what is not null)
        {
            throw new NotSupportedException($"{what} is set; the engine takes it from the model's file. Leave it unset.");
        }
    }

    private EncodeResult Encode(LLamaBatch batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (!Options.Embeddings)
        {
            throw new NotSupportedException("Encode gives embeddings; create the context with Embeddings = true.");
        }

        int[] sequences = [.. batch.SequenceIds.ToArray().Distinct()];
        int[] lengths = [.. sequences.Select(Handle.SeqLength)];
        if (Decode(batch, cancellationToken) != DecodeResult.Ok)
        {
            return EncodeResult.Error;
        }

        for (int i = 0; i < sequences.Length; i++)
        {
            Handle.SeqTruncate(sequences[i], lengths[i]);
        }

        return EncodeResult.Ok;
    }

    private DecodeResult Decode(LLamaBatch batch, CancellationToken cancellationToken) =>
        Decode(batch, static (handle, b, token) => handle.Decode(b.Tokens, b.SequenceIds, b.Positions, b.Outputs, token), cancellationToken);

    private DecodeResult Decode(LLamaBatchEmbeddings batch, CancellationToken cancellationToken) =>
        Decode(batch, static (handle, b, token) => handle.DecodeEmbeddings(b.Embeddings, b.SequenceIds, b.Positions, b.Outputs, token), cancellationToken);

    private DecodeResult Decode<TBatch>(TBatch batch, Action<ContextHandle, TBatch, CancellationToken> decode, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        try
        {
            decode(Handle, batch, cancellationToken);
            return DecodeResult.Ok;
        }
        catch (KvCacheFullException)
        {
            return DecodeResult.NoKvSlot;
        }
    }
}
