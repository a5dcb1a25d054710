using System.ClientModel;
using System.Net;
using System.Text.Json;
using OpenAI;
using OpenAI.Embeddings;

namespace LlamaKivi.Server.Tests;

public sealed class TextTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private TestServer Server => shared.Server;

    [Fact]
    public async Task Completions_continue_texts_and_tokens_alike()
    {
        (HttpStatusCode status, JsonElement text, _) = await Server.PostAsync("/v1/completions", """{"prompt":"Once upon a time","max_tokens":8,"temperature":0}""");
        Assert.Equal(HttpStatusCode.OK, status);
        (_, JsonElement tokens, _) = await Server.PostAsync("/tokenize", """{"content":"Once upon a time","add_special":true}""");
        (_, JsonElement ids, _) = await Server.PostAsync("/v1/completions", $$"""{"prompt":{{tokens.GetProperty("tokens").GetRawText()}},"max_tokens":8,"temperature":0}""");
        Assert.NotEmpty(Text(text));
        Assert.Equal(Text(text), Text(ids));
        Assert.Equal(8, text.GetProperty("usage").GetProperty("completion_tokens").GetInt32());
    }

    [Fact]
    public async Task Completions_stream_echo_and_give_log_probabilities()
    {
        using HttpResponseMessage response = await Server.Http.PostAsync("/v1/completions", TestServer.Json(
            """{"prompt":["One, two,","A cat"],"max_tokens":4,"temperature":0,"stream":true,"echo":true,"logprobs":2,"stream_options":{"include_usage":true}}"""));
        string[] events = (await response.Content.ReadAsStringAsync()).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("data: [DONE]", events[^1]);
        JsonElement[] chunks = [.. events[..^1].Select(text => JsonElement.Parse(text["data: ".Length..]))];
        JsonElement[] choices = [.. chunks.SelectMany(chunk => chunk.GetProperty("choices").EnumerateArray())];
        string first = string.Concat(choices.Where(choice => choice.GetProperty("index").GetInt32() == 0).Select(choice => choice.GetProperty("text").GetString()));
        Assert.StartsWith("One, two,", first, StringComparison.Ordinal);
        int tokens = choices.Where(choice => choice.TryGetProperty("logprobs", out _)).Sum(choice => choice.GetProperty("logprobs").GetProperty("tokens").GetArrayLength());
        Assert.Equal(8, tokens);
        Assert.Equal(8, chunks[^1].GetProperty("usage").GetProperty("completion_tokens").GetInt32());
        Assert.Equal(2, choices.Count(choice => choice.GetProperty("finish_reason").GetString() == "length"));
    }

    [Theory]
    [InlineData("""{"prompt":""}""", "prompt")]
    [InlineData("""{"prompt":[]}""", "prompt")]
    [InlineData("""{"prompt":[[]]}""", "prompt[0]")]
    [InlineData("""{"prompt":[1,-2]}""", "prompt[1]")]
    [InlineData("""{"prompt":"a","suffix":"b"}""", "suffix")]
    [InlineData("""{"prompt":"a","best_of":3}""", "best_of")]
    [InlineData("""{"prompt":["a","b","c","d"],"n":16}""", "n")]
    public async Task Wrong_completions_are_refused(string json, string param)
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/completions", json);
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal(param, body.GetProperty("error").GetProperty("param").GetString());
    }

    [Fact]
    public async Task The_official_client_gets_embeddings()
    {
        var client = new EmbeddingClient("kivi-demo-llama-37m-q4_k_m", new ApiKeyCredential("any"), new OpenAIClientOptions { Endpoint = new Uri(Server.Address, "/v1") });
        OpenAIEmbeddingCollection embeddings = await client.GenerateEmbeddingsAsync(["A cat", "A cat", "Water boils"]);
        (_, JsonElement body, _) = await Server.PostAsync("/v1/embeddings", """{"input":"A cat","encoding_format":"float"}""");
        float[] vector = embeddings[0].ToFloats().ToArray();
        Assert.Equal(3, embeddings.Count);
        Assert.Equal(1, vector.Sum(x => x * x), 1e-3);
        Assert.Equal(vector, embeddings[1].ToFloats().ToArray());
        Assert.NotEqual(vector, embeddings[2].ToFloats().ToArray());
        Assert.Equal(vector, body.GetProperty("data")[0].GetProperty("embedding").EnumerateArray().Select(x => x.GetSingle()));
        Assert.True(embeddings.Usage.InputTokenCount > 5);
    }

    [Fact]
    public async Task Token_ids_are_embedded_as_they_are()
    {
        Tokenization.Tokenizer tokenizer = Server.Engine.LoadedWeights!.Tokenizer;
        int[] whole = tokenizer.Encode("A cat sleeps", tokenizer.AddBos, parseSpecial: true);
        int[] letters = [.. "A cat sleeps".SelectMany(letter => tokenizer.Encode($"{letter}", addBos: false, parseSpecial: true))];
        Assert.NotEqual(letters, tokenizer.Encode(tokenizer.Decode(letters), addBos: false, parseSpecial: true));
        (_, JsonElement text, _) = await Server.PostAsync("/v1/embeddings", """{"input":"A cat sleeps"}""");
        (HttpStatusCode status, JsonElement one, _) = await Server.PostAsync("/v1/embeddings", $$"""{"input":{{JsonSerializer.Serialize(whole)}}}""");
        Assert.True(status == HttpStatusCode.OK, one.ToString());
        Assert.Equal(text.ToString(), one.ToString());
        (_, JsonElement many, _) = await Server.PostAsync("/v1/embeddings", $$"""{"input":{{JsonSerializer.Serialize((int[][])[letters, whole])}}}""");
        Assert.Equal(letters.Length + whole.Length, many.GetProperty("usage").GetProperty("prompt_tokens").GetInt32());
        Assert.Equal(Vector(text, 0), Vector(many, 1));
        Assert.NotEqual(Vector(many, 0), Vector(many, 1));
        (_, JsonElement letter, _) = await Server.PostAsync("/v1/embeddings", $$"""{"input":[{{letters[0]}}]}""");
        Assert.Equal(1, letter.GetProperty("usage").GetProperty("prompt_tokens").GetInt32());
    }

    [Fact]
    public async Task Base64_is_the_bytes_of_the_floats()
    {
        int size = Server.Engine.LoadedWeights!.EmbeddingSize;
        (_, JsonElement floats, _) = await Server.PostAsync("/v1/embeddings", $$"""{"input":"A cat","dimensions":{{size}}}""");
        (_, JsonElement base64, _) = await Server.PostAsync("/v1/embeddings", """{"input":["A cat"],"encoding_format":"base64"}""");
        byte[] bytes = base64.GetProperty("data")[0].GetProperty("embedding").GetBytesFromBase64();
        Assert.Equal(size, Vector(floats, 0).Length);
        Assert.Equal(Vector(floats, 0), System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(bytes).ToArray());
    }

    [Theory]
    [InlineData("""{}""", "input")]
    [InlineData("""{"input":[]}""", "input")]
    [InlineData("""{"input":""}""", "input")]
    [InlineData("""{"input":["a",""]}""", "input[1]")]
    [InlineData("""{"input":["a",5]}""", "input[1]")]
    [InlineData("""{"input":[[1],[]]}""", "input[1]")]
    [InlineData("""{"input":[1,-2]}""", "input[1]")]
    [InlineData("""{"input":[1,99999999]}""", "input[1]")]
    [InlineData("""{"input":[1,1.5]}""", "input[1]")]
    [InlineData("""{"input":[[1],[2,99999999]]}""", "input[1][1]")]
    [InlineData("""{"input":[[1],"a"]}""", "input[1]")]
    [InlineData("""{"input":["a","LONG"]}""", "input[1]")]
    [InlineData("""{"input":"LONG"}""", "input")]
    [InlineData("""{"input":"a","dimensions":7}""", "dimensions")]
    [InlineData("""{"input":"a","encoding_format":"hex"}""", "encoding_format")]
    public async Task Wrong_embeddings_are_refused(string json, string param)
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync(
            "/v1/embeddings", json.Replace("LONG", string.Concat(Enumerable.Repeat("tree ", 9000)), StringComparison.Ordinal));
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal(param, body.GetProperty("error").GetProperty("param").GetString());
    }

    [Fact]
    public async Task Reranking_needs_a_reranking_model()
    {
        (HttpStatusCode status, JsonElement body, _) = await Server.PostAsync("/v1/rerank", """{"query":"cat","documents":["a","b"]}""");
        Assert.Equal(HttpStatusCode.BadRequest, status);
        Assert.Equal("model", body.GetProperty("error").GetProperty("param").GetString());
    }

    [Fact]
    public async Task Tokens_become_the_text_they_came_from()
    {
        const string Text = "Grüße, 世界 🐈!";
        (_, JsonElement tokens, _) = await Server.PostAsync("/tokenize", $$"""{"content":{{JsonSerializer.Serialize(Text)}}}""");
        (_, JsonElement back, _) = await Server.PostAsync("/detokenize", $$"""{"tokens":{{tokens.GetProperty("tokens").GetRawText()}}}""");
        Assert.Equal(Text, back.GetProperty("content").GetString()!.TrimStart());
        (_, JsonElement prompt, _) = await Server.PostAsync("/apply-template", """{"messages":[{"role":"user","content":"Hello"}]}""");
        Assert.Contains("Hello", prompt.GetProperty("prompt").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_piece_that_is_no_whole_text_is_its_bytes()
    {
        const string Text = "a cat 世界 🐈";
        (_, JsonElement body, _) = await Server.PostAsync("/tokenize", $$"""{"content":"{{Text}}","with_pieces":true}""");
        JsonElement[] pieces = [.. body.GetProperty("tokens").EnumerateArray().Select(token => token.GetProperty("piece"))];
        Assert.Contains(pieces, piece => piece.ValueKind == JsonValueKind.String && piece.GetString() == " c");
        Assert.Contains(pieces, piece => piece.ValueKind == JsonValueKind.Array);
        byte[] bytes = [.. pieces.SelectMany(piece => piece.ValueKind == JsonValueKind.String
            ? System.Text.Encoding.UTF8.GetBytes(piece.GetString()!)
            : [.. piece.EnumerateArray().Select(item => item.GetByte())])];
        Assert.Equal(Text, System.Text.Encoding.UTF8.GetString(bytes).TrimStart());
    }

    [Fact]
    public async Task Properties_and_metrics_describe_the_server()
    {
        await Server.PostAsync("/v1/completions", """{"prompt":"Once","max_tokens":3}""");
        JsonElement props = JsonElement.Parse(await Server.Http.GetStringAsync("/props"));
        Assert.Equal(8, props.GetProperty("total_slots").GetInt32());
        string metrics = await Server.Http.GetStringAsync("/metrics");
        Assert.Contains("\nllamakivi_generated_tokens{", metrics, StringComparison.Ordinal);
        Assert.Contains("\n# TYPE gen_ai_server_time_to_first_token histogram", metrics, StringComparison.Ordinal);
        Assert.Contains("\n# TYPE llamakivi_generated_tokens counter\n", metrics, StringComparison.Ordinal);
        Assert.Contains("\n# TYPE llamakivi_cache_used gauge\n", metrics, StringComparison.Ordinal);
        Assert.DoesNotContain("`1)", metrics, StringComparison.Ordinal);
        Assert.Contains("\ngen_ai_server_time_to_first_token_bucket{", metrics, StringComparison.Ordinal);
        Assert.All((string[])["capacity", "tokens", "used", "free"], gauge => Assert.Contains($"\nllamakivi_cache_{gauge}{{", metrics, StringComparison.Ordinal));
    }

    private static float[] Vector(JsonElement body, int index) =>
        [.. body.GetProperty("data")[index].GetProperty("embedding").EnumerateArray().Select(x => x.GetSingle())];

    private static string Text(JsonElement body) => body.GetProperty("choices")[0].GetProperty("text").GetString()!;
}
