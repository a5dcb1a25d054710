using System.ClientModel;
using System.Net;
using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Chat;

namespace LlamaKivi.Server.Tests;

using ChatCompletion = OpenAI.Chat.ChatCompletion;
using ChatMessage = OpenAI.Chat.ChatMessage;

public sealed class ChatCompletionsTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private const string Story = "Tell me a story about a cat.";

    private TestServer Server => shared.Server;

    private ChatClient Client => new("kivi-demo-llama-37m-q4_k_m", new ApiKeyCredential("any"), new OpenAIClientOptions { Endpoint = new Uri(Server.Address, "/v1") });

    [Fact]
    public async Task The_official_client_gets_an_answer_with_its_usage()
    {
        ChatCompletion answer = await Client.CompleteChatAsync([ChatMessage.CreateUserMessage(Story)], new ChatCompletionOptions { MaxOutputTokenCount = 12, Temperature = 0 });
        Assert.NotEmpty(answer.Content[0].Text);
        Assert.Equal(12, answer.Usage.OutputTokenCount);
        Assert.Equal(answer.Usage.InputTokenCount + 12, answer.Usage.TotalTokenCount);
        Assert.Equal(OpenAI.Chat.ChatFinishReason.Length, answer.FinishReason);
    }

    [Fact]
    public async Task A_stream_has_the_text_of_the_answer_and_ends_with_the_usage()
    {
        var options = new ChatCompletionOptions { MaxOutputTokenCount = 16, Temperature = 0 };
        ChatCompletion answer = await Client.CompleteChatAsync([ChatMessage.CreateUserMessage(Story)], options);
        string text = "";
        int pieces = 0;
        ChatTokenUsage? usage = null;
        OpenAI.Chat.ChatFinishReason? reason = null;
        await foreach (StreamingChatCompletionUpdate update in Client.CompleteChatStreamingAsync([ChatMessage.CreateUserMessage(Story)], new ChatCompletionOptions { MaxOutputTokenCount = 16, Temperature = 0 }))
        {
            text += string.Concat(update.ContentUpdate.Select(part => part.Text));
            pieces += update.ContentUpdate.Count;
            usage ??= update.Usage;
            reason ??= update.FinishReason;
        }

        Assert.Equal(answer.Content[0].Text, text);
        Assert.True(pieces > 5);
        Assert.Equal(16, usage!.OutputTokenCount);
        Assert.Equal(OpenAI.Chat.ChatFinishReason.Length, reason);
    }

    [Fact]
    public async Task A_system_prompt_that_requests_share_comes_from_the_prefix_cache()
    {
        ChatMessage system = ChatMessage.CreateSystemMessage(string.Concat(Enumerable.Repeat("You answer briefly and kindly. ", 20)));
        int cached = 0;
        foreach (string question in (string[])["Hello", "What is a cat?", "Tell me more."])
        {
            ChatCompletion answer = await Client.CompleteChatAsync([system, ChatMessage.CreateUserMessage(question)], new ChatCompletionOptions { MaxOutputTokenCount = 4, Temperature = 0 });
            cached = answer.Usage.InputTokenDetails.CachedTokenCount;
        }

        Assert.True(cached > 50, $"{cached} tokens were cached.");
    }

    [Fact]
    public async Task A_schema_holds_in_the_answer()
    {
        var options = new ChatCompletionOptions
        {
            MaxOutputTokenCount = 400,  // the grammar lets a model write blanks between values
            Temperature = 0,
            ResponseFormat = OpenAI.Chat.ChatResponseFormat.CreateJsonSchemaFormat(
                "animal",
                BinaryData.FromString("""{"type":"object","properties":{"name":{"enum":["cat","dog"]},"legs":{"type":"integer","minimum":0,"maximum":9}},"required":["name","legs"],"additionalProperties":false}"""),
                jsonSchemaIsStrict: true),
        };
        ChatCompletion answer = await Client.CompleteChatAsync([ChatMessage.CreateUserMessage("An animal, please.")], options);
        JsonElement json = JsonElement.Parse(answer.Content[0].Text);
        Assert.Contains(json.GetProperty("name").GetString(), new[] { "cat", "dog" });
        Assert.InRange(json.GetProperty("legs").GetInt32(), 0, 9);
    }

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"hi"}],"temperature":0,"max_tokens":16,"response_format":{"type":"json_object"}}""")]
    [InlineData("/v1/responses", """{"input":"hi","temperature":0,"max_output_tokens":16,"text":{"format":{"type":"json_object"}}}""")]
    public async Task A_json_object_is_an_object(string path, string json)
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync(path, json);
        Assert.Equal(HttpStatusCode.OK, status);
        JsonElement text = body.TryGetProperty("choices", out JsonElement choices)
            ? choices[0].GetProperty("message").GetProperty("content")
            : body.GetProperty("output")[0].GetProperty("content")[0].GetProperty("text");
        Assert.StartsWith("{", text.GetString()!.TrimStart(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Equal_seeds_give_equal_texts_and_choices_differ()
    {
        const string Request = """{"messages":[{"role":"user","content":"Tell me a story."}],"seed":7,"n":3,"max_tokens":12,"temperature":1.5,"min_p":0,"top_k":0,"user":"u","metadata":{"a":"b"},"store":false}""";
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/chat/completions", Request);
        (_, JsonElement again, _) = await Server.PostAsync("/v1/chat/completions", Request);
        Assert.Equal(HttpStatusCode.OK, status);
        string?[] texts = Texts(body);
        Assert.Equal(3, texts.Distinct(StringComparer.Ordinal).Count());
        Assert.Equal(3, Texts(again).Length);
        Assert.Equal(36, body.GetProperty("usage").GetProperty("completion_tokens").GetInt32());

        static string?[] Texts(JsonElement body) => [.. body.GetProperty("choices").EnumerateArray().Select(choice => choice.GetProperty("message").GetProperty("content").GetString())];
    }

    [Fact]
    public async Task A_bias_excludes_and_forces_tokens()
    {
        int[] tokens = (await Server.Engine.WaitUntilReadyAsync()).Tokenizer.Encode(" cat", addBos: false, parseSpecial: false);
        (_, JsonElement body, _) = await Server.PostAsync(
            "/v1/chat/completions", $$$"""{"messages":[{"role":"user","content":"Hello"}],"max_tokens":3,"temperature":0,"logit_bias":{"{{{tokens[0]}}}":100}}""");
        string text = body.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()!;
        string piece = Server.Engine.LoadedWeights!.Tokenizer.Decode(tokens.AsSpan(0, 1));
        Assert.Equal(string.Concat(Enumerable.Repeat(piece, 3)).Trim(), text.Trim());
    }

    [Fact]
    public async Task A_stop_string_ends_the_text_before_it()
    {
        (_, JsonElement whole, _) = await Server.PostAsync("/v1/chat/completions", """{"messages":[{"role":"user","content":"Tell me a story."}],"max_tokens":20,"temperature":0}""");
        string text = whole.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()!;
        string stop = text.Split(' ', StringSplitOptions.RemoveEmptyEntries)[3];
        (_, JsonElement body, _) = await Server.PostAsync(
            "/v1/chat/completions", $$"""{"messages":[{"role":"user","content":"Tell me a story."}],"max_tokens":20,"temperature":0,"stop":{{JsonSerializer.Serialize(stop)}}}""");
        string cut = body.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()!;
        Assert.Equal(text[..text.IndexOf(stop, StringComparison.Ordinal)], cut);
        Assert.Equal("stop", body.GetProperty("choices")[0].GetProperty("finish_reason").GetString());
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Log_probabilities_come_with_the_tokens(bool stream)
    {
        var options = new ChatCompletionOptions { MaxOutputTokenCount = 6, Temperature = 0, IncludeLogProbabilities = true, TopLogProbabilityCount = 3 };
        List<ChatTokenLogProbabilityDetails> tokens = [];
        string text = "";
        if (stream)
        {
            await foreach (StreamingChatCompletionUpdate update in Client.CompleteChatStreamingAsync([ChatMessage.CreateUserMessage(Story)], options))
            {
                tokens.AddRange(update.ContentTokenLogProbabilities);
                text += string.Concat(update.ContentUpdate.Select(part => part.Text));
            }
        }
        else
        {
            ChatCompletion answer = await Client.CompleteChatAsync([ChatMessage.CreateUserMessage(Story)], options);
            tokens.AddRange(answer.ContentTokenLogProbabilities);
            text = answer.Content[0].Text;
        }

        Assert.Equal(6, tokens.Count);
        Assert.Equal(text.Trim(), string.Concat(tokens.Select(token => token.Token)).Trim());
        Assert.All(tokens, token => Assert.Equal(3, token.TopLogProbabilities.Count));
        Assert.All(tokens, token => Assert.Equal(token.TopLogProbabilities[0].Token, token.Token));  // greedy
        Assert.All(tokens, token => Assert.InRange(token.LogProbability, float.MinValue, 0));
    }

    [Fact]
    public async Task The_client_of_Microsoft_Extensions_AI_streams()
    {
        using IChatClient client = Client.AsIChatClient();
        string text = "";
        await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync(Story, new ChatOptions { MaxOutputTokens = 8 }))
        {
            text += update.Text;
        }

        Assert.NotEmpty(text);
    }

    [Fact]
    public async Task A_client_that_goes_away_ends_its_request()
    {
        using var stop = new CancellationTokenSource();
        int seen = 0;
        await Assert.ThrowsAnyAsync<Exception>(async () =>
        {
            await foreach (StreamingChatCompletionUpdate update in Client.CompleteChatStreamingAsync(
                [ChatMessage.CreateUserMessage(Story)], new ChatCompletionOptions { MaxOutputTokenCount = 3000, LogitBiases = { [2] = -100 } }, stop.Token))
            {
                if (++seen == 3)
                {
                    await stop.CancelAsync();
                }
            }
        });
        await Server.IdleAsync();
    }
}
