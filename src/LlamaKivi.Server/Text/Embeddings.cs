using System.Runtime.InteropServices;
using System.Text.Json;
using LlamaKivi.Hosting;
using LlamaKivi.Native;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary><c>POST /v1/embeddings</c> and <c>/v1/rerank</c>.</summary>
internal static class Embeddings
{
    private const int MaxTexts = 2048;

    public static async Task HandleAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        ServedModel model = lease.Model;
        body.Accept("model", "user");
        string[] texts = ReadInput(body, model);
        bool isBase64 = body.OneOf("encoding_format", "float", "base64") == "base64";
        long? dimensions = body.Whole("dimensions", 1, int.MaxValue);
        body.RefuseUnknown();
        if (dimensions is not null && dimensions != model.Weights.EmbeddingSize)
        {
            throw ApiException.Bad("dimensions", $"dimensions is {dimensions}; this model's embeddings have {model.Weights.EmbeddingSize}.", "invalid_value");
        }

        using IEmbeddingGenerator<string, Embedding<float>> generator = model.Engine.AsEmbeddingGenerator();
        GeneratedEmbeddings<Embedding<float>> embeddings = await generator.GenerateAsync(texts, cancellationToken: request.Cancellation).ConfigureAwait(false);
        EmbeddingView[] data = [.. embeddings.Select((embedding, i) => new EmbeddingView("embedding", i, Write(embedding.Vector, isBase64)))];
        long tokens = embeddings.Usage!.InputTokenCount!.Value;
        await JsonResult.WriteAsync(
            request.Http.Response, new EmbeddingList("list", data, model.Names[0], new EmbeddingUsage(tokens, tokens)), ServerJson.Text.EmbeddingList).ConfigureAwait(false);
    }

    public static async Task RerankAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        body.Accept("model", "user");
        string query = body.RequiredText("query");
        IReadOnlyList<string> documents = body.Texts("documents") ?? throw body.Missing("documents");
        long top = body.Whole("top_n", 1, int.MaxValue) ?? documents.Count;
        bool withTexts = body.Flag("return_documents") ?? false;
        body.RefuseUnknown();
        if (documents.Count is 0 or > MaxTexts)
        {
            throw ApiException.Bad("documents", $"documents has {documents.Count} texts; give 1 to {MaxTexts}.", "invalid_value");
        }

        EngineReranker reranker = lease.Model.Engine.AsReranker();
        var results = new List<RerankResult>();
        long tokens = 0;
        try
        {
            for (int i = 0; i < documents.Count; i++)
            {
                (float score, int count) = await reranker.GetRelevanceScoreWithTokenCount(query, documents[i], normalize: true, request.Cancellation).ConfigureAwait(false);
                tokens += count;
                results.Add(new RerankResult(i, score, withTexts ? new RerankDocument(documents[i]) : null));
            }
        }
        catch (UnsupportedModelException e)
        {
            throw ApiException.Bad("model", e.Message, "unsupported_model");
        }

        RerankResult[] best = [.. results.OrderByDescending(result => result.RelevanceScore).Take((int)Math.Min(top, int.MaxValue))];
        await JsonResult.WriteAsync(
            request.Http.Response, new RerankList("list", lease.Model.Names[0], best, new EmbeddingUsage(tokens, tokens)), ServerJson.Text.RerankList).ConfigureAwait(false);
    }

    private static string[] ReadInput(JsonFields body, ServedModel model)
    {
        JsonElement input = body.Required("input");
        string[] texts;
        if (input.ValueKind == JsonValueKind.Array && input.GetArrayLength() > 0 && input[0].ValueKind is JsonValueKind.Number or JsonValueKind.Array)
        {
            int vocabulary = model.Weights.Tokenizer.VocabularySize;
            int[][] tokens = input[0].ValueKind == JsonValueKind.Number
                ? [TokenFields.Read(input, "input", vocabulary)]
                : [.. JsonFields.Items(input, "input").Select(item => TokenFields.Read(item.Value, item.Path, vocabulary))];
            texts = [.. tokens.Select(ids => model.Weights.Tokenizer.Decode(ids))];
        }
        else
        {
            texts = [.. body.Texts("input")!];
        }

        return texts.Length is 0 or > MaxTexts || texts.Contains("", StringComparer.Ordinal)
            ? throw ApiException.Bad("input", $"input has {texts.Length} texts; give 1 to {MaxTexts}, none of them empty.", "invalid_value")
            : texts;
    }

    private static JsonElement Write(ReadOnlyMemory<float> vector, bool isBase64)
    {
        // Base64 is the little-endian bytes of the floats, as OpenAI's clients read them.
        using JsonDocument document = isBase64
            ? JsonDocument.Parse($"\"{Convert.ToBase64String(MemoryMarshal.AsBytes(vector.Span))}\"")
            : JsonSerializer.SerializeToDocument(vector.ToArray(), ServerJson.Text.SingleArray);
        return document.RootElement.Clone();
    }
}

internal sealed record EmbeddingList(string Object, EmbeddingView[] Data, string Model, EmbeddingUsage Usage);

internal sealed record EmbeddingView(string Object, int Index, JsonElement Embedding);

internal sealed record EmbeddingUsage(long PromptTokens, long TotalTokens);

internal sealed record RerankList(string Object, string Model, RerankResult[] Results, EmbeddingUsage Usage);

internal sealed record RerankResult(int Index, float RelevanceScore, RerankDocument? Document);

internal sealed record RerankDocument(string Text);
