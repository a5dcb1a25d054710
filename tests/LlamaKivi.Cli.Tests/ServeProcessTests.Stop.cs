using System.Net;
using System.Text.Json;

namespace LlamaKivi.Cli.Tests;

// SIGTERM: streams, further clients, loads.
public sealed partial class ServeProcessTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Streams_finish_or_end_with_an_error_on_SIGTERM(bool isFolder)
    {
        const int Drain = 6;
        File.CreateSymbolicLink(Path.Combine(_folder, Path.GetFileName(CommandLine.Model)), CommandLine.Model);
        await using Server server = await Server.StartAsync([.. isFolder ? ["--models", _folder] : Array.Empty<string>(), "-np", "8", "-c", "16384", "--drain", $"{Drain}"]);
        // A short stream that has few of its 40 tokens left finishes within the drain time, long ones do not.
        Stream[] streams = [.. Enumerable.Range(0, 12).Select(i => new Stream(server, i, tokens: i % 2 == 0 ? 40 : 8000))];
        Task[] readers = [.. streams.Select(stream => stream.ReadAsync())];
        while (streams.Count(stream => stream.Pieces > 0) < 6 || !streams.Any(stream => stream.IsDone || (stream.Index % 2 == 0 && stream.Pieces >= 36)))
        {
            await Task.Delay(5);
        }

        await server.SignalAsync("TERM");
        await server.SignalAsync("TERM");  // impatience changes nothing
        await AssertDrainingAsync(server.Http.BaseAddress!);
        await Task.WhenAll(readers).WaitAsync(TimeSpan.FromSeconds(60));
        Assert.Equal(0, await server.ExitAsync());
        Assert.All(streams, stream => Assert.True(stream.IsDone || stream.Error is "server_draining", $"Stream {stream.Index} ended with {stream.Last}"));
        Assert.Contains(streams, stream => stream.IsDone);
        Assert.Contains(streams, stream => stream is { Error: "server_draining", Pieces: > 0 });
    }

    // A client that connects after the signal.
    private static async Task AssertDrainingAsync(Uri address)
    {
        while (await IsReadyAsync())
        {
            // The process has not handled the signal yet.
        }

        using var http = new HttpClient { BaseAddress = address };
        using HttpResponseMessage health = await http.GetAsync("/health");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, """{"status":"draining"}"""), (health.StatusCode, await health.Content.ReadAsStringAsync()));
        Assert.True(health.Headers.ConnectionClose);
        using HttpResponseMessage refused = await http.PostAsync("/v1/completions", Json("""{"prompt":"Hello","max_tokens":1}"""));
        JsonElement error = JsonElement.Parse(await refused.Content.ReadAsStringAsync()).GetProperty("error");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, "server_error", "server_draining"), (refused.StatusCode, error.GetProperty("type").GetString(), error.GetProperty("code").GetString()));

        async Task<bool> IsReadyAsync()
        {
            using var first = new HttpClient { BaseAddress = address };
            using HttpResponseMessage response = await first.GetAsync("/health");
            return response.IsSuccessStatusCode;
        }
    }

    // Kestrel alone waits for the rest of the head until the host's limit, which is 610 seconds here.
    [Theory]
    [InlineData("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-")]
    [InlineData("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTT")]
    public async Task Connections_without_a_whole_request_end_on_SIGTERM(string start)
    {
        await using Server server = await Server.StartAsync("-c", "512", "--drain", "600");
        using var client = new System.Net.Sockets.TcpClient();
        await client.ConnectAsync(server.Http.BaseAddress!.Host, server.Http.BaseAddress.Port);
        await client.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes(start));
        using var answers = new StreamReader(client.GetStream());
        if (start.Contains("\r\n\r\n", StringComparison.Ordinal))
        {
            // With the answer to the whole request, the server has read both.
            for (string answer = ""; !answer.EndsWith("""{"status":"ok"}""", StringComparison.Ordinal);)
            {
                int next = answers.Read();
                Assert.NotEqual(-1, next);
                answer += (char)next;
            }
        }

        await server.CompleteAsync("Hello");  // the first connection has been accepted before this one
        await server.SignalAsync("TERM");
        try
        {
            await answers.ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(60));
        }
        catch (IOException)
        {
            // A reset ends the connection too.
        }

        Assert.Equal(0, await server.ExitAsync());
    }

    [Fact]
    public async Task A_server_whose_model_loads_stops_on_SIGTERM()
    {
        await using Server server = await Server.StartAsync(wait: false, "-c", "512");
        await server.SignalAsync("TERM");
        Assert.Equal(0, await server.ExitAsync());
        Assert.DoesNotContain("   at ", await server.ErrorAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_load_under_way_ends_on_SIGTERM()
    {
        File.CreateSymbolicLink(Path.Combine(_folder, "one.gguf"), CommandLine.Model);
        await using Server server = await Server.StartAsync("--models", _folder);
        Task<HttpResponseMessage> running = server.Http.PostAsync("/v1/completions", Json("""{"prompt":"Hello","max_tokens":1}"""));
        await server.SignalAsync("TERM");
        try
        {
            using HttpResponseMessage response = await running.WaitAsync(TimeSpan.FromSeconds(30));
            JsonElement body = JsonElement.Parse(await response.Content.ReadAsStringAsync());
            Assert.True(response.IsSuccessStatusCode || body.GetProperty("error").GetProperty("code").GetString() == "server_draining", body.ToString());
        }
        catch (HttpRequestException)
        {
            // The signal came before the request.
        }

        Assert.Equal(0, await server.ExitAsync());
    }

    private sealed class Stream(Server server, int index, int tokens)
    {
        public int Index => index;

        /// <summary>Number of events with text.</summary>
        public int Pieces { get; private set; }

        public bool IsDone { get; private set; }

        /// <summary>Code of the error; null: none.</summary>
        public string? Error { get; private set; }

        public string Last { get; private set; } = "";

        public async Task ReadAsync()
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions")
            {
                Content = Json($$$"""{"model":"{{{Path.GetFileNameWithoutExtension(CommandLine.Model)}}}","messages":[{"role":"user","content":"Tell story {{{index}}}"}],"stream":true,"max_tokens":{{{tokens}}},"logit_bias":{"2":-100}}"""),
            };
            using HttpResponseMessage response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
            using var reader = new StreamReader(await response.Content.ReadAsStreamAsync());
            if (!response.IsSuccessStatusCode)
            {
                Last = await reader.ReadToEndAsync();
                Error = JsonElement.Parse(Last).GetProperty("error").GetProperty("code").GetString();
                return;
            }

            while (await reader.ReadLineAsync() is { } line)
            {
                if (line.Length == 0)
                {
                    continue;
                }

                Assert.StartsWith("data: ", line, StringComparison.Ordinal);
                Assert.False(IsDone || Error is not null, $"An event follows the end of stream {index}: {line}");
                Last = line["data: ".Length..];
                IsDone = Last == "[DONE]";
                JsonElement item = IsDone ? default : JsonElement.Parse(Last);
                Error = !IsDone && item.TryGetProperty("error", out JsonElement error) ? error.GetProperty("code").GetString() : null;
                Pieces += IsDone || Error is not null ? 0 : 1;
            }
        }
    }
}
