using System.Runtime.InteropServices;
using System.Text.Json;
using LlamaKivi.Exceptions;
using LlamaKivi.Hosting;
using LlamaKivi.Native;

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
        (object Input, string Path)[] inputs = ReadInput(body, model);
        bool isBase64 = body.OneOf("encoding_format", "float", "base64") == "base64";
        long? dimensions = body.Whole("dimensions", 1, int.MaxValue);
        body.RefuseUnknown();
        if (dimensions is not null && dimensions != model.Weights.EmbeddingSize)
        {
            throw ApiException.Bad("dimensions", $"dimensions is {dimensions}; this model's embeddings have {model.Weights.EmbeddingSize}.", "invalid_value");
        }

        var data = new List<EmbeddingView>();
        long tokens = 0;
        foreach ((object input, string path) in inputs)
        {
            try
            {
                (float[] embedding, int count) = await model.Engine.EmbedAsync(input, request.Cancellation).ConfigureAwait(false);
                data.Add(new EmbeddingView("embedding", data.Count, Write(embedding, isBase64)));
                tokens += count;
            }
            catch (ContextOverflowException e)
            {
                throw ApiException.TooLong(path, e);
            }
        }

        await JsonResult.WriteAsync(
            request.Http.Response, new EmbeddingList("list", [.. data], model.Names[0], new EmbeddingUsage(tokens, tokens)), ServerJson.Text.EmbeddingList).ConfigureAwait(false);
    }

    public static async Task RerankAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        body.Accept("model", "user");
        string query = body.RequiredText("query");
        (string Text, string Path)[] documents = [.. (body.Items("documents") ?? throw body.Missing("documents")).Select(item => (Document(item.Value, item.Path), item.Path))];
        long top = body.Whole("top_n", 1, int.MaxValue) ?? documents.Length;
        bool withTexts = body.Flag("return_documents") ?? false;
        body.RefuseUnknown();
        if (documents.Length is 0 or > MaxTexts)
        {
            throw ApiException.Bad("documents", $"documents has {documents.Length} texts; give 1 to {MaxTexts}.", "invalid_value");
        }

        EngineReranker reranker = lease.Model.Engine.AsReranker();
        var results = new List<RerankResult>();
        long tokens = 0;
        foreach ((string text, string path) in documents)
        {
            try
            {
                (float score, int count) = await reranker.GetRelevanceScoreWithTokenCount(query, text, normalize: true, request.Cancellation).ConfigureAwait(false);
                tokens += count;
                results.Add(new RerankResult(results.Count, score, withTexts ? new RerankDocument(text) : null));
            }
            catch (UnsupportedModelException e)
            {
                throw ApiException.Bad("model", e.Message, "unsupported_model");
            }
            catch (ContextOverflowException e)
            {
                throw ApiException.TooLong(path, e);
            }
        }

        RerankResult[] best = [.. results.OrderByDescending(result => result.RelevanceScore).Take((int)top)];
        await JsonResult.WriteAsync(
            request.Http.Response, new RerankList("list", lease.Model.Names[0], best, new EmbeddingUsage(tokens, tokens)), ServerJson.Text.RerankList).ConfigureAwait(false);
    }

    // A string, or an object with one.
    private static string Document(JsonElement value, string path)
    {
        if (value.ValueKind == JsonValueKind.String)
        {
            return JsonFields.Text(value, path);
        }

        if (value.ValueKind != JsonValueKind.Object)
        {
            throw JsonFields.Wrong(path, value, "a string or an object with a text");
        }

        var document = new JsonFields(value, path);
        string text = document.RequiredText("text");
        document.RefuseUnknown();
        return text;
    }

    // Strings and arrays of token ids, with their paths.
    private static (object Input, string Path)[] ReadInput(JsonFields body, ServedModel model)
    {
        JsonElement input = body.Required("input");
        JsonValueKind kind = input.ValueKind == JsonValueKind.Array && input.GetArrayLength() > 0 ? input[0].ValueKind : JsonValueKind.String;
        int vocabulary = model.Weights.Tokenizer.VocabularySize;
        (object, string)[] inputs = kind == JsonValueKind.Number ? [(TokenFields.Read(input, "input", vocabulary), "input")]
            : input.ValueKind == JsonValueKind.String ? [(JsonFields.NotEmpty(input, "input"), "input")]
            : input.ValueKind != JsonValueKind.Array ? throw JsonFields.Wrong("input", input, "a string, token ids, or an array of either")
            : [.. JsonFields.Items(input, "input").Select(item => (
                kind == JsonValueKind.Array ? (object)TokenFields.ReadSome(item.Value, item.Path, vocabulary) : JsonFields.NotEmpty(item.Value, item.Path), item.Path))];
        return inputs.Length is 0 or > MaxTexts ? throw ApiException.Bad("input", $"input has {inputs.Length} texts; give 1 to {MaxTexts}.", "invalid_value") : inputs;
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
