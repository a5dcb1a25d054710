using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
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
        NativeHandle = new SafeLLamaContextHandle(this);
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

    /// <summary>What sampling pipelines read logits from.</summary>
    public SafeLLamaContextHandle NativeHandle { get; }

    /// <summary>Tokens the cache holds over all sequences.</summary>
    public uint ContextSize => (uint)Options.ContextSize;

    /// <summary>Most tokens handed to the engine in one call.</summary>
    public uint BatchSize => Math.Min(Params.BatchSize, ContextSize);

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Weights.EmbeddingSize;

    /// <summary>The model's vocabulary.</summary>
    public SafeLlamaModelHandle.Vocabulary Vocab => Weights.Vocab;

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
    internal Generation? SequenceHolder { get; set; }

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
                using ContextCall call = Enter();
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

    /// <summary>Frees the cache; the model goes on. What computes is cancelled, and what waits for the context ends: with <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose() => Handle.Dispose();

    // The calls of a method are one.
    private ContextCall Enter([CallerMemberName] string method = "") => Handle.Enter($"{nameof(LLamaContext)}.{method}");

    private EncodeResult Encode(LLamaBatch batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (!Options.Embeddings)
        {
            throw new NotSupportedException("Encode gives embeddings; create the context with Embeddings = true.");
        }

        using ContextCall call = Enter();
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

    private DecodeResult Decode(LLamaBatch batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        if (batch.Tokens.ContainsAnyExceptInRange(0, Handle.VocabularySize - 1))
        {
            return DecodeResult.InvalidInputBatch;
        }

        using ContextCall call = Enter();
        foreach ((int first, int[] others) in batch.Shared)
        {
            CheckEmpty(first);
            Array.ForEach(others, CheckEmpty);
        }

        DecodeResult result = Decode(
            batch, batch.TokenCount, static (handle, b, token) => handle.Decode(b.Tokens, b.SequenceIds, b.Positions, b.Outputs, token), cancellationToken);
        if (result == DecodeResult.Ok)
        {
            foreach ((int first, int[] others) in batch.Shared)
            {
                Array.ForEach(others, other => Handle.SeqCopy(first, other));
            }
        }

        return result;
    }

    // What is shared is decoded in one sequence and copied to the others.
    private void CheckEmpty(int sequence)
    {
        if (Handle.SeqLength(sequence) > 0)
        {
            throw new NotSupportedException(
                $"A token of the batch belongs to several sequences, and sequence {sequence} has tokens already. Sequences can share what they begin with; after that, decode in one and copy it to the others.");
        }
    }

    private DecodeResult Decode(LLamaBatchEmbeddings batch, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(batch);
        return Decode(
            batch, batch.EmbeddingsCount, static (handle, b, token) => handle.DecodeEmbeddings(b.Embeddings, b.SequenceIds, b.Positions, b.Outputs, token), cancellationToken);
    }

    private DecodeResult Decode<TBatch>(TBatch batch, int count, Action<ContextHandle, TBatch, CancellationToken> decode, CancellationToken cancellationToken)
    {
        if (count > BatchSize)
        {
            throw new ArgumentException($"The batch has {count} tokens; this context takes {BatchSize} at a time. Raise BatchSize, or decode in pieces.", nameof(batch));
        }

        if (count == 0)
        {
            return DecodeResult.Ok;
        }

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
