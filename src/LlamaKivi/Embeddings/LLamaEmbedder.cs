using System.Numerics.Tensors;
using LlamaKivi.Abstractions;
using LlamaKivi.Exceptions;
using LlamaKivi.Extensions;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Computes text embeddings: the model's last hidden states after the output norm, pooled and scaled to Euclidean length 1.</summary>
/// <remarks>Thread-safe; texts are processed one at a time.</remarks>
public sealed class LLamaEmbedder : IEmbeddingGenerator<string, Embedding<float>>
{
    private readonly LLamaPoolingType _pooling;

    /// <summary>Creates an embedder with its own context.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="params">Context parameters. PoolingType: Mean, CLS (first token), Last, or None (one embedding per token). Unspecified: the
    /// model file's pooling type, or Last if it has none.</param>
    /// <param name="logger">Receives messages about the context.</param>
    /// <exception cref="NotSupportedException">PoolingType is Rank.</exception>
    public LLamaEmbedder(LLamaWeights weights, IContextParams @params, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(@params);
        _pooling = @params.PoolingType == LLamaPoolingType.Unspecified
            ? (LLamaPoolingType)(weights.Model.Gguf.GetInteger($"{weights.Model.Description.Architecture}.pooling_type") ?? (long)LLamaPoolingType.Last)
            : @params.PoolingType;
        if (_pooling is not (LLamaPoolingType.None or LLamaPoolingType.Mean or LLamaPoolingType.CLS or LLamaPoolingType.Last))
        {
            throw new NotSupportedException($"PoolingType is {_pooling}; an embedder supports None, Mean, CLS and Last.");
        }

        Context = new LLamaContext(weights, @params, logger, embeddings: true);
        Context.Handle.Owner = typeof(LLamaEmbedder).FullName!;
    }

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingSize => Context.EmbeddingSize;

    /// <summary>The embedder's context.</summary>
    public LLamaContext Context { get; private set; }

    /// <summary>Computes the embeddings of a text: [embedding length], one, or one per token if PoolingType is None.</summary>
    /// <exception cref="ContextOverflowException">The text has more tokens than the context holds.</exception>
    /// <exception cref="ArgumentException">The text has no tokens.</exception>
    public async Task<IReadOnlyList<float[]>> GetEmbeddings(string input, CancellationToken cancellationToken = default) =>
        await EmbedAsync(Encode(input), cancellationToken).ConfigureAwait(false);

    /// <inheritdoc/>
    /// <exception cref="NotSupportedException">PoolingType is None, so a text has several embeddings, or the options request another embedding length.</exception>
    public async Task<GeneratedEmbeddings<Embedding<float>>> GenerateAsync(
        IEnumerable<string> values, EmbeddingGenerationOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(values);
        CheckPooling();
        if (options?.Dimensions is { } dimensions && dimensions != EmbeddingSize)
        {
            throw new NotSupportedException($"Embeddings of {dimensions} elements were requested; this model's embeddings have {EmbeddingSize}.");
        }

        var results = new GeneratedEmbeddings<Embedding<float>>();
        long tokens = 0;
        foreach (string value in values)
        {
            int[] encoded = Encode(value);
            List<float[]> embeddings = await EmbedAsync(encoded, cancellationToken).ConfigureAwait(false);
            results.Add(new Embedding<float>(embeddings[0]) { CreatedAt = DateTimeOffset.UtcNow, ModelId = options?.ModelId });
            tokens += encoded.Length;
        }

        results.Usage = new UsageDetails { InputTokenCount = tokens, TotalTokenCount = tokens };
        return results;
    }

    /// <inheritdoc/>
    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(EmbeddingGeneratorMetadata) ? new EmbeddingGeneratorMetadata("LlamaKivi", defaultModelDimensions: EmbeddingSize)
            : serviceType == typeof(LLamaContext) ? Context
            : serviceType.IsInstanceOfType(this) ? this
            : null;
    }

    /// <summary>Frees the context. Running calls are cancelled; they and waiting calls throw <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose() => Context.Dispose();

    /// <summary>Tokens of a text, as it is embedded.</summary>
    internal int[] Encode(string input)
    {
        ArgumentNullException.ThrowIfNull(input);
        return [.. Context.Tokenize(input, addBos: true, special: true).Select(token => (int)token)];
    }

    /// <summary>Computes the embedding of tokens, to which nothing is added.</summary>
    /// <exception cref="NotSupportedException">PoolingType is None.</exception>
    internal async Task<float[]> GetEmbedding(int[] tokens, CancellationToken cancellationToken)
    {
        CheckPooling();
        return (await EmbedAsync(tokens, cancellationToken).ConfigureAwait(false))[0];
    }

    private void CheckPooling()
    {
        if (_pooling == LLamaPoolingType.None)
        {
            throw new NotSupportedException("PoolingType is None, which gives one embedding per token. Set it to Mean, Last or CLS.");
        }
    }

    private async Task<List<float[]>> EmbedAsync(int[] tokens, CancellationToken cancellationToken)
    {
        if (tokens.Length == 0)
        {
            throw new ArgumentException("The text is empty: it has no tokens.", nameof(tokens));
        }

        if (tokens.Length > Context.ContextSize)
        {
            throw new ContextOverflowException($"The text has {tokens.Length} tokens; the context holds {Context.ContextSize}. Raise ContextSize or shorten the text.");
        }

        using ContextTurn turn = await Context.Handle.WaitTurnAsync($"{nameof(LLamaEmbedder)}.{nameof(GetEmbeddings)}", cancellationToken).ConfigureAwait(false);
        return await Task.Run(() => Embed(turn, tokens, cancellationToken), cancellationToken).ConfigureAwait(false);
    }

    private List<float[]> Embed(ContextTurn turn, int[] tokens, CancellationToken cancellationToken)
    {
        using ContextCall call = Context.Handle.Enter(turn);
        var embeddings = new List<float[]>();
        float[] mean = [];
        Context.Handle.SeqTruncate(0, 0);
        int batch = checked((int)Context.BatchSize);
        for (int begin = 0; begin < tokens.Length; begin += batch)
        {
            int n = Math.Min(batch, tokens.Length - begin);
            var outputs = new byte[n];
            outputs.AsSpan().Fill(1);
            Context.Handle.Decode(tokens.AsSpan(begin, n), outputs: outputs, cancellationToken: cancellationToken);
            for (int i = 0; i < n; i++)
            {
                if (_pooling == LLamaPoolingType.Mean)
                {
                    mean = mean.Length == 0 ? new float[EmbeddingSize] : mean;
                    TensorPrimitives.Add(mean, Context.Handle.Embedding(i), mean);
                }
                else if (_pooling == LLamaPoolingType.None || begin + i == (_pooling == LLamaPoolingType.CLS ? 0 : tokens.Length - 1))
                {
                    embeddings.Add(Context.Handle.Embedding(i).ToArray().EuclideanNormalization());
                }
            }
        }

        if (_pooling == LLamaPoolingType.Mean)
        {
            embeddings.Add(mean.EuclideanNormalization());  // same direction as the mean
        }

        return embeddings;
    }
}
