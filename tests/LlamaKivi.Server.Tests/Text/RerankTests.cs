using System.Net;
using System.Text.Json;
using LlamaKivi.Common;
using LlamaKivi.TestHelpers;

namespace LlamaKivi.Server.Tests;

/// <summary><c>/v1/rerank</c> with a reranking model.</summary>
public sealed class RerankTests(RerankTests.RerankServer shared) : IClassFixture<RerankTests.RerankServer>
{
    private const string Query = "What frees memory?";
    private const string Documents = """["a tree","a stone","the collector","warm water"]""";  // the model scores the last token

    private static readonly string[] Texts = JsonSerializer.Deserialize<string[]>(Documents)!;

    [Theory]
    [InlineData("")]
    [InlineData(""","top_n":2,"return_documents":true""")]
    [InlineData(""","top_n":99""")]
    public async Task Documents_are_ordered_by_the_scores_of_the_library(string fields)
    {
        IReadOnlyList<float> scores = await shared.ScoresAsync(Texts);
        int[] order = [.. Enumerable.Range(0, scores.Count).OrderByDescending(i => scores[i])];
        JsonElement body = await RerankAsync(Documents, fields);
        JsonElement[] results = [.. body.GetProperty("results").EnumerateArray()];
        int[] indices = [.. results.Select(result => result.GetProperty("index").GetInt32())];
        Assert.Equal(4, scores.Distinct().Count());
        Assert.Equal(fields.Contains("2,", StringComparison.Ordinal) ? order[..2] : order, indices);
        Assert.Equal(indices.Select(i => scores[i]), results.Select(result => result.GetProperty("relevance_score").GetSingle()));
        Assert.All(results, (result, i) => Assert.Equal(
            fields.Contains("return", StringComparison.Ordinal) ? Texts[indices[i]] : null,
            result.TryGetProperty("document", out JsonElement document) ? document.GetProperty("text").GetString() : null));
        Assert.True(body.GetProperty("usage").GetProperty("total_tokens").GetInt32() > 20);
    }

    [Fact]
    public async Task Documents_may_be_objects_with_a_text()
    {
        string objects = JsonSerializer.Serialize(Texts.Select((text, i) => i == 0 ? (object)text : new { text }));
        JsonElement body = await RerankAsync(objects, ""","return_documents":true""");
        Assert.Equal((await RerankAsync(Documents, ""","return_documents":true""")).ToString(), body.ToString());
    }

    [Theory]
    [InlineData("""{"documents":["a"]}""", "query")]
    [InlineData("""{"query":"a"}""", "documents")]
    [InlineData("""{"query":"a","documents":[]}""", "documents")]
    [InlineData("""{"query":"a","documents":["a",5]}""", "documents[1]")]
    [InlineData("""{"query":"a","documents":["a",{}]}""", "documents[1].text")]
    [InlineData("""{"query":"a","documents":["a",{"text":"b","image":"c"}]}""", "documents[1].image")]
    [InlineData("""{"query":"a","documents":["a"],"top_n":0}""", "top_n")]
    [InlineData("""{"query":"a","documents":["a","LONG"]}""", "documents[1]")]
    [InlineData("""{"query":"LONG","documents":["a"]}""", "documents[0]")]
    public async Task Wrong_requests_are_refused(string json, string param)
    {
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync(
            "/v1/rerank", json.Replace("LONG", string.Concat(Enumerable.Repeat("tree ", 200)), StringComparison.Ordinal));
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal(param, body.GetProperty("error").GetProperty("param").GetString());
    }

    private async Task<JsonElement> RerankAsync(string documents, string fields)
    {
        (HttpStatusCode status, JsonElement body, _) = await shared.Server.PostAsync("/v1/rerank", $$"""{"query":"{{Query}}","documents":{{documents}}{{fields}}}""");
        Assert.True(status == HttpStatusCode.OK, body.ToString());
        return body;
    }

    /// <summary>A server of a reranking model.</summary>
    public sealed class RerankServer : IAsyncLifetime
    {
        private readonly string _path = Path.Combine(Path.GetTempPath(), $"llama-kivi-reranker-{Guid.NewGuid():N}.gguf");

        public TestServer Server { get; private set; } = null!;

        /// <summary>Scores of the library's reranker.</summary>
        public async Task<IReadOnlyList<float>> ScoresAsync(string[] documents)
        {
            using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(_path));
            using var reranker = new LLamaReranker(weights, new ModelParams("") { ContextSize = 128, Threads = 1, KvCache = KvCacheParams.Parse("f16") });
            return await reranker.GetRelevanceScores(Query, documents, normalize: true);
        }

        public async ValueTask InitializeAsync()
        {
            using (Native.GgufFile tokenizer = Native.GgufFile.Open(TestServer.ModelPath))
            {
                RerankModel.Write(_path, tokenizer, template: "query: {query} document: {document}");
            }

            Server = await TestServer.StartAsync(engine: options => (options.ModelPath, options.ContextSize, options.KvCache) = (_path, 128, KvCacheParams.Parse("f16")));
        }

        public async ValueTask DisposeAsync()
        {
            await Server.DisposeAsync();
            File.Delete(_path);
        }
    }
}
