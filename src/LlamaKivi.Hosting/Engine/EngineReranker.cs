using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

/// <summary>Scores how well documents answer a query. Uses the model of an engine in a separate context; documents are processed one at a time.</summary>
public sealed class EngineReranker
{
    private readonly EngineContexts<LLamaReranker> _reranker;

    internal EngineReranker(EngineContexts<LLamaReranker> reranker) => _reranker = reranker;

    /// <summary>Scores documents; higher is more relevant.</summary>
    /// <param name="input">The query.</param>
    /// <param name="documents">The documents.</param>
    /// <param name="normalize">Whether to apply the logistic function, so that scores are between 0 and 1.</param>
    /// <param name="cancellationToken">Cancels the computation.</param>
    /// <returns>Scores, [documents].</returns>
    /// <exception cref="UnsupportedModelException">The model has no reranking head.</exception>
    /// <exception cref="ContextOverflowException">Query and document together have more tokens than <see cref="InferenceEngineOptions.EmbeddingContextSize"/>.</exception>
    public Task<IReadOnlyList<float>> GetRelevanceScores(
        string input, IReadOnlyList<string> documents, bool normalize = false, CancellationToken cancellationToken = default) =>
        _reranker.UseAsync(reranker => reranker.GetRelevanceScores(input, documents, normalize, cancellationToken), cancellationToken);

    /// <summary>Scores one document and counts the decoded tokens.</summary>
    /// <inheritdoc cref="GetRelevanceScores"/>
    /// <param name="input">The query.</param>
    /// <param name="document">The document.</param>
    /// <param name="normalize">Whether to apply the logistic function.</param>
    /// <param name="cancellationToken">Cancels the computation.</param>
    /// <returns>The score and the number of decoded tokens.</returns>
    public Task<(float Score, int Tokens)> GetRelevanceScoreWithTokenCount(
        string input, string document, bool normalize = false, CancellationToken cancellationToken = default) =>
        _reranker.UseAsync(reranker => reranker.GetRelevanceScoreWithTokenCount(input, document, normalize, cancellationToken), cancellationToken);
}
