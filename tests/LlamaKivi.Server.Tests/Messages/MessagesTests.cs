using System.Net;
using System.Text.Json;
using Anthropic;
using Anthropic.Models.Messages;

namespace LlamaKivi.Server.Tests;

public sealed class MessagesTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private TestServer Server => shared.Server;

    [Fact]
    public async Task The_official_client_gets_an_answer()
    {
        using var client = new AnthropicClient { BaseUrl = Server.Address.ToString().TrimEnd('/'), ApiKey = "any" };
        Message answer = await client.Messages.Create(new MessageCreateParams
        {
            Model = "kivi-demo-llama-37m-q4_k_m",
            MaxTokens = 9,
            Messages = [new MessageParam { Role = Role.User, Content = "Tell me a story." }],
        });
        Assert.True(answer.Content[0].TryPickText(out TextBlock? text));
        Assert.NotEmpty(text.Text);
        Assert.Equal(9, answer.Usage.OutputTokens);
    }

    [Fact]
    public async Task The_official_client_streams()
    {
        using var client = new AnthropicClient { BaseUrl = Server.Address.ToString().TrimEnd('/'), ApiKey = "any" };
        string text = "";
        var types = new List<string>();
        await foreach (RawMessageStreamEvent item in client.Messages.CreateStreaming(new MessageCreateParams
        {
            Model = "kivi-demo-llama-37m-q4_k_m",
            MaxTokens = 9,
            Messages = [new MessageParam { Role = Role.User, Content = "Tell me a story." }],
        }))
        {
            types.Add(item.Json.GetProperty("type").GetString()!);
            if (item.TryPickContentBlockDelta(out RawContentBlockDeltaEvent? delta) && delta.Delta.TryPickText(out TextDelta? piece))
            {
                text += piece.Text;
            }
        }

        Assert.NotEmpty(text);
        Assert.Equal(["message_start", "content_block_start"], types[..2]);
        Assert.Equal(["content_block_stop", "message_delta", "message_stop"], types[^3..]);
    }

    [Fact]
    public async Task Tokens_are_counted_as_the_answer_counts_them()
    {
        const string Start = """{"model":"kivi-demo-llama-37m-q4_k_m","system":[{"type":"text","text":"Be brief."}],"messages":[{"role":"user","content":"Hello"}]""";
        (_, JsonElement count, _) = await Server.PostAsync("/v1/messages/count_tokens", Start + "}");
        (_, JsonElement answer, _) = await Server.PostAsync("/v1/messages", Start + ""","max_tokens":2}""");
        JsonElement usage = answer.GetProperty("usage");
        Assert.Equal(count.GetProperty("input_tokens").GetInt32(), usage.GetProperty("input_tokens").GetInt32() + usage.GetProperty("cache_read_input_tokens").GetInt32());
        Assert.Equal("max_tokens", answer.GetProperty("stop_reason").GetString());
    }

    [Fact]
    public async Task The_stop_sequence_that_ended_the_text_is_given()
    {
        const string Start = """{"max_tokens":24,"temperature":0,"messages":[{"role":"user","content":"Tell me a story."}]""";
        (_, JsonElement whole, _) = await Server.PostAsync("/v1/messages", Start + "}");
        string text = whole.GetProperty("content")[0].GetProperty("text").GetString()!;
        Assert.Equal(JsonValueKind.Null, whole.GetProperty("stop_sequence").ValueKind);
        string stop = text[4..8];
        string stops = $$""","stop_sequences":["never in it",{{JsonSerializer.Serialize(stop)}}]""";
        (_, JsonElement cut, _) = await Server.PostAsync("/v1/messages", Start + stops + "}");
        Assert.Equal(("stop_sequence", stop), (cut.GetProperty("stop_reason").GetString(), cut.GetProperty("stop_sequence").GetString()));
        Assert.Equal(text[..text.IndexOf(stop, StringComparison.Ordinal)], cut.GetProperty("content")[0].GetProperty("text").GetString());

        using HttpResponseMessage response = await Server.Http.PostAsync("/v1/messages", TestServer.Json(Start + stops + ""","stream":true}"""));
        string[] events = (await response.Content.ReadAsStringAsync()).Split('\n');
        JsonElement delta = events.Where(line => line.StartsWith("data: ", StringComparison.Ordinal)).Select(line => JsonElement.Parse(line[6..]))
            .Single(item => item.GetProperty("type").GetString() == "message_delta").GetProperty("delta");
        Assert.Equal(("stop_sequence", stop), (delta.GetProperty("stop_reason").GetString(), delta.GetProperty("stop_sequence").GetString()));
    }

    [Theory]
    [InlineData("""{"messages":[{"role":"user","content":"Hello"}]}""", HttpStatusCode.BadRequest, "invalid_request_error", "max_tokens")]
    [InlineData("""{"max_tokens":1,"messages":[]}""", HttpStatusCode.BadRequest, "invalid_request_error", "messages")]
    [InlineData("""{"max_tokens":1,"messages":[{"role":"system","content":"Hello"}]}""", HttpStatusCode.BadRequest, "invalid_request_error", "role")]
    [InlineData("""{"max_tokens":1,"messages":[{"role":"user","content":[{"type":"image"}]}]}""", HttpStatusCode.BadRequest, "invalid_request_error", "image")]
    [InlineData("""{"model":"other","max_tokens":1,"messages":[{"role":"user","content":"Hello"}]}""", HttpStatusCode.NotFound, "not_found_error", "other")]
    public async Task Errors_have_the_shape_of_the_API(string json, HttpStatusCode status, string type, string text)
    {
        (HttpStatusCode given, JsonElement body, _) = await Server.PostAsync("/v1/messages", json);
        Assert.Equal(status, given);
        Assert.Equal("error", body.GetProperty("type").GetString());
        Assert.Equal(type, body.GetProperty("error").GetProperty("type").GetString());
        Assert.Contains(text, body.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
    }
}
