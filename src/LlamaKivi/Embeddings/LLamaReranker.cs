using LlamaKivi.Abstractions;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Scores how well documents answer a query, using a model with a reranking head (tensor cls.output.weight).</summary>
/// <remarks>Thread-safe; documents are processed one at a time.</remarks>
public sealed class LLamaReranker : IDisposable
{
    private readonly Tokenizer _tokenizer;
    private readonly int? _separator;
    private readonly string? _template;

    /// <summary>Creates a reranker with its own context.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="params">Context parameters. PoolingType: Rank or Unspecified.</param>
    /// <param name="logger">Receives messages about the context.</param>
    /// <exception cref="NotSupportedException">PoolingType is neither Rank nor Unspecified.</exception>
    /// <exception cref="UnsupportedModelException">The model has no reranking head.</exception>
    public LLamaReranker(LLamaWeights weights, IContextParams @params, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(@params);
        if (@params.PoolingType is not (LLamaPoolingType.Rank or LLamaPoolingType.Unspecified))
        {
            throw new NotSupportedException($"PoolingType is {@params.PoolingType}; a reranker supports Rank.");
        }

        if (weights.Model.Description.RankScoreCount == 0)
        {
            throw new UnsupportedModelException("The model has no tensor 'cls.output.weight', so it is not a reranker. Load a model trained for reranking.");
        }

        GgufFile file = weights.Model.Gguf;
        _tokenizer = weights.Tokenizer;
        _template = file.GetString("tokenizer.chat_template.rerank");
        _separator = (int?)file.GetInteger("tokenizer.ggml.seperator_token_id");  // the key's spelling in the GGUF specification
        Context = new LLamaContext(weights, @params, logger, embeddings: true);
        Context.Handle.Owner = typeof(LLamaReranker).FullName!;
    }

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingSize => Context.EmbeddingSize;

    /// <summary>The reranker's context.</summary>
    public LLamaContext Context { get; private set; }

    /// <summary>Scores documents; higher is more relevant.</summary>
    /// <param name="input">The query.</param>
    /// <param name="documents">The documents.</param>
    /// <param name="normalize">Whether to apply the logistic function 1 / (1 + exp(-s)), so that scores are between 0 and 1.</param>
    /// <param name="cancellationToken">Cancels the computation.</param>
    /// <returns>Scores, [documents].</returns>
    /// <exception cref="ContextOverflowException">Query and document together have more tokens than the context holds.</exception>
    public async Task<IReadOnlyList<float>> GetRelevanceScores(
        string input, IReadOnlyList<string> documents, bool normalize = false, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(documents);
        var scores = new float[documents.Count];
        for (int i = 0; i < scores.Length; i++)
        {
            (scores[i], _) = await GetRelevanceScoreWithTokenCount(input, documents[i], normalize, cancellationToken).ConfigureAwait(false);
        }

        return scores;
    }

    /// <summary>Scores one document.</summary>
    /// <param name="input">The query.</param>
    /// <param name="document">The document.</param>
    /// <param name="normalize">Whether to apply the logistic function 1 / (1 + exp(-s)), so that the score is between 0 and 1.</param>
    /// <param name="cancellationToken">Cancels the computation.</param>
    /// <returns>The score, which is the model's first output, and the number of decoded tokens.</returns>
    /// <exception cref="ContextOverflowException">Query and document together have more tokens than the context holds.</exception>
    public async Task<(float Score, int Tokens)> GetRelevanceScoreWithTokenCount(
        string input, string document, bool normalize = false, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(input);
        ArgumentNullException.ThrowIfNull(document);
        int[] tokens = Write(input, document);
        if (tokens.Length == 0)
        {
            throw new ArgumentException("Query and document are empty: there are no tokens.", nameof(document));
        }

        if (tokens.Length > Context.ContextSize)
        {
            throw new ContextOverflowException(
                $"Query and document have {tokens.Length} tokens; the context holds {Context.ContextSize}. Raise ContextSize or shorten the document.");
        }

        using ContextTurn turn = await Context.Handle.WaitTurnAsync($"{nameof(LLamaReranker)}.{nameof(GetRelevanceScores)}", cancellationToken).ConfigureAwait(false);
        float score = await Task.Run(() => Score(turn, tokens, cancellationToken), cancellationToken).ConfigureAwait(false);
        return (normalize ? 1 / (1 + MathF.Exp(-score)) : score, tokens.Length);
    }

    /// <summary>Frees the context. Running calls are cancelled; they and waiting calls throw <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose() => Context.Dispose();

    // The model's rerank template, or else [BOS] query [EOS] [SEP] document [EOS] with the tokens that the vocabulary has.
    private int[] Write(string query, string document)
    {
        if (_template is not null)
        {
            // Replaces both placeholders in one pass: the query itself may contain "{document}".
            string text = string.Join(query, _template.Split("{query}").Select(part => part.Replace("{document}", document, StringComparison.Ordinal)));
            return [.. _tokenizer.Encode(text, _tokenizer.AddBos, true)];
        }

        int[] end = _tokenizer.EosId is { } eos ? [eos] : [];
        int[] separator = _separator is { } id ? [id] : [];
        return [.. _tokenizer.Encode(query, _tokenizer.AddBos, false), .. end, .. separator, .. _tokenizer.Encode(document, false, false), .. end];
    }

    // In a causal model only the last token attends to the whole text, so the head uses its hidden state.
    private float Score(ContextTurn turn, int[] tokens, CancellationToken cancellationToken)
    {
        using ContextCall call = Context.Handle.Enter(turn);
        Context.Handle.SeqTruncate(0, 0);
        Context.Handle.Decode(tokens, cancellationToken: cancellationToken);
        return Context.Handle.RankScores(tokens.Length - 1)[0];
    }
}
