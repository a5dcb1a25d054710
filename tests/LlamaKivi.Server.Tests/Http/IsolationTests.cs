using System.Net;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

/// <summary>Whether clients share prefixes with clients of other API keys.</summary>
public sealed class IsolationTests
{
    private const string Text = "one two three four five six seven eight nine ten eleven";

    public static TheoryData<string, string> Requests => new()
    {
        { "/v1/completions", $$"""{"prompt":"{{Text}}","max_tokens":1}""" },
        { "/v1/chat/completions", $$"""{"messages":[{"role":"user","content":"{{Text}}"}],"max_tokens":1}""" },
        { "/v1/responses", $$"""{"input":"{{Text}}","max_output_tokens":1}""" },
        { "/v1/messages", $$"""{"messages":[{"role":"user","content":"{{Text}}"}],"max_tokens":1}""" },
    };

    [Theory]
    [MemberData(nameof(Requests))]
    public async Task Prefixes_belong_to_one_API_key_where_they_are_isolated(string path, string json)
    {
        foreach (bool isolates in (bool[])[true, false])
        {
            await using TestServer server = await TestServer.StartAsync(
                options => (options.ApiKeys as List<string>)!.AddRange(["alice", "bob"]), engine => engine.PrefixCache.Isolation = isolates);
            string longer = json.Replace("eleven", "eleven twelve", StringComparison.Ordinal);
            await CachedAsync(server, path, json, "alice");
            await CachedAsync(server, path, longer, "alice");
            Assert.Equal(!isolates, await CachedAsync(server, path, longer, "bob") > 0);
            Assert.True(await CachedAsync(server, path, longer, "alice") > 0);
        }
    }

    [Fact]
    public async Task A_cache_key_isolates_conversations_of_one_client()
    {
        await using TestServer server = await TestServer.StartAsync(engine: engine => engine.PrefixCache.Isolation = true);
        string Json(string key, string end) => $$"""{"messages":[{"role":"user","content":"{{Text}}{{end}}"}],"max_tokens":1,"prompt_cache_key":"{{key}}"}""";
        await CachedAsync(server, "/v1/chat/completions", Json("a", ""), "");
        await CachedAsync(server, "/v1/chat/completions", Json("a", " twelve"), "");
        Assert.Equal(0, await CachedAsync(server, "/v1/chat/completions", Json("b", " twelve"), ""));
        Assert.True(await CachedAsync(server, "/v1/chat/completions", Json("a", " twelve"), "") > 0);
    }

    private static async Task<int> CachedAsync(TestServer server, string path, string json, string key)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = TestServer.Json(json) };
        request.Headers.Add("x-api-key", key);
        using HttpResponseMessage response = await server.Http.SendAsync(request);
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(response.StatusCode == HttpStatusCode.OK, text);
        JsonElement usage = JsonElement.Parse(text).GetProperty("usage");
        return usage.TryGetProperty("cache_read_input_tokens", out JsonElement read) ? read.GetInt32()
            : usage.GetProperty(path == "/v1/responses" ? "input_tokens_details" : "prompt_tokens_details").GetProperty("cached_tokens").GetInt32();
    }
}
