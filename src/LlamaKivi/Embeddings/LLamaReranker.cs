using LlamaKivi.Abstractions;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Says how well documents answer a query, with a model whose file has a reranker's head (tensor cls.output.weight).</summary>
/// <remarks>Any number of threads may use it; it does one document at a time.</remarks>
public sealed class LLamaReranker : IDisposable
{
    private readonly Tokenizer _tokenizer;
    private readonly int? _separator;
    private readonly string? _template;

    /// <summary>Creates a reranker with a context of its own.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="params">The context. PoolingType: Rank or Unspecified.</param>
    /// <param name="logger">Told of the context.</param>
    /// <exception cref="NotSupportedException">PoolingType is another.</exception>
    /// <exception cref="UnsupportedModelException">The model is no reranker.</exception>
    public LLamaReranker(LLamaWeights weights, IContextParams @params, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(@params);
        if (@params.PoolingType is not (LLamaPoolingType.Rank or LLamaPoolingType.Unspecified))
        {
            throw new NotSupportedException($"PoolingType is {@params.PoolingType}; a reranker has Rank.");
        }

        if (weights.Model.Description.RankScoreCount == 0)
        {
            throw new UnsupportedModelException("The model has no tensor 'cls.output.weight': it is no reranker. Load one that was trained to rerank.");
        }

        GgufFile file = weights.Model.Gguf;
        _tokenizer = weights.Tokenizer;
        _template = file.GetString("tokenizer.chat_template.rerank");
        _separator = (int?)file.GetInteger("tokenizer.ggml.seperator_token_id");  // the key's spelling in the GGUF specification
        Context = new LLamaContext(weights, @params, logger, embeddings: true);
        Context.Handle.Owner = typeof(LLamaReranker).FullName!;
    }

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Context.EmbeddingSize;

    /// <summary>The reranker's context.</summary>
    public LLamaContext Context { get; private set; }

    /// <summary>Scores documents; the higher, the better they answer.</summary>
    /// <param name="input">The query.</param>
    /// <param name="documents">The documents.</param>
    /// <param name="normalize">True: scores s become 1 / (1 + exp(-s)), between 0 and 1.</param>
    /// <param name="cancellationToken">Stops the computation.</param>
    /// <returns>A score for each document.</returns>
    /// <exception cref="ContextOverflowException">Query and document have more tokens than the context holds.</exception>
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

    /// <summary>Scores a document.</summary>
    /// <param name="input">The query.</param>
    /// <param name="document">The document.</param>
    /// <param name="normalize">True: the score s becomes 1 / (1 + exp(-s)), between 0 and 1.</param>
    /// <param name="cancellationToken">Stops the computation.</param>
    /// <returns>The score, the first of those the model gives, and how many tokens were read.</returns>
    /// <exception cref="ContextOverflowException">Query and document have more tokens than the context holds.</exception>
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
                $"Query and document have {tokens.Length} tokens; the context holds {Context.ContextSize}. Raise ContextSize or cut the document.");
        }

        using ContextTurn turn = await Context.Handle.WaitTurnAsync($"{nameof(LLamaReranker)}.{nameof(GetRelevanceScores)}", cancellationToken).ConfigureAwait(false);
        float score = await Task.Run(() => Score(turn, tokens, cancellationToken), cancellationToken).ConfigureAwait(false);
        return (normalize ? 1 / (1 + MathF.Exp(-score)) : score, tokens.Length);
    }

    /// <summary>Frees the context. Calls that run are cancelled, and they and those that wait throw <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose() => Context.Dispose();

    // The model's own template, or [BOS] query [EOS] [SEP] document [EOS] with the tokens that the vocabulary has.
    private int[] Write(string query, string document)
    {
        if (_template is not null)
        {
            // In one sweep: a query may hold "{document}".
            string text = string.Join(query, _template.Split("{query}").Select(part => part.Replace("{document}", document, StringComparison.Ordinal)));
            return [.. _tokenizer.Encode(text, _tokenizer.AddBos, true)];
        }

        int[] end = _tokenizer.EosId is { } eos ? [eos] : [];
        int[] separator = _separator is { } id ? [id] : [];
        return [.. _tokenizer.Encode(query, _tokenizer.AddBos, false), .. end, .. separator, .. _tokenizer.Encode(document, false, false), .. end];
    }

    // A causal model has read the whole text at its last token, which is where its head looks.
    private float Score(ContextTurn turn, int[] tokens, CancellationToken cancellationToken)
    {
        using ContextCall call = Context.Handle.Enter(turn);
        Context.Handle.SeqTruncate(0, 0);
        Context.Handle.Decode(tokens, cancellationToken: cancellationToken);
        return Context.Handle.RankScores(tokens.Length - 1)[0];
    }
}
