using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace LlamaKivi.Cli.Tests;

/// <summary>The server as a process that is stopped and killed.</summary>
public sealed partial class ServeProcessTests(ServeProcessTests.SharedServer shared) : IClassFixture<ServeProcessTests.SharedServer>, IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2}""", "chat.completion")]
    [InlineData("/v1/chat/completions", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":200,"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"enum":[1,2]}}}}""", "chat.completion")]
    [InlineData("/v1/completions", """{"prompt":"Hello","max_tokens":2,"logprobs":1}""", "text_completion")]
    [InlineData("/v1/responses", """{"input":"Hello","max_output_tokens":2}""", "output_text")]
    [InlineData("/v1/messages", """{"messages":[{"role":"user","content":"Hello"}],"max_tokens":2}""", "end_turn|max_tokens")]
    [InlineData("/v1/embeddings", """{"input":"Hello"}""", "embedding")]
    [InlineData("/tokenize", """{"content":"Hello"}""", "tokens")]
    [InlineData("/apply-template", """{"messages":[{"role":"user","content":"Hello"}]}""", "Hello")]
    [InlineData("/v1/models", null, "loaded")]
    [InlineData("/slots", null, "is_processing")]
    [InlineData("/engine", null, "cache_type_k")]
    [InlineData("/metrics", null, "llamakivi_cache_capacity")]
    [InlineData("/openapi.json", null, "openapi")]
    [InlineData("/", null, "<!doctype html>")]
    public async Task The_server_answers_each_API(string path, string? json, string expected)
    {
        Server server = shared.Server;
        using HttpResponseMessage response = json is null ? await server.Http.GetAsync(path) : await server.Http.PostAsync(path, Json(json));
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(response.StatusCode == HttpStatusCode.OK, text);
        Assert.Matches("(?i)" + expected, text);
    }

    [Theory]
    [InlineData("-m and --models are both given", "-m", "model.gguf", "--models", ".")]
    [InlineData("which is no folder", "--models", "/none")]
    [InlineData("which is no folder", "--slot-save-path", "/none")]
    [InlineData("--kv-memory is 12x; it must be a whole number of bytes", "--kv-memory", "12x")]
    public async Task Options_that_do_not_fit_are_refused(string message, params string[] options)
    {
        CommandLine.Result result = await CommandLine.RunAsync(["serve", "--port", "0", .. options]);
        Assert.NotEqual(0, result.ExitCode);
        Assert.Contains(message, result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_engine_that_cannot_start_ends_the_server()
    {
        string underAFile = Path.Combine(CommandLine.Model, "none");
        CommandLine.Result result = await CommandLine.RunAsync("serve", "-m", CommandLine.Model, "--port", "0", "-ngl", "0", "-t", "2", "--prefix-path", underAFile);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains(underAFile, result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Layers_for_a_missing_GPU_are_one_line_and_no_stack_trace()
    {
        CommandLine.Result result = await CommandLine.RunAsync(
            "llama-kivi", "", ["serve", "-m", CommandLine.Model, "--port", "0", "-ngl", "5", "-t", "2"], ("CUDA_VISIBLE_DEVICES", "-1"));
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("cannot be served: the GPU cannot be used: ", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_port_in_use_is_one_line()
    {
        using var taken = new System.Net.Sockets.TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        string port = ((IPEndPoint)taken.LocalEndpoint).Port.ToString(System.Globalization.CultureInfo.InvariantCulture);
        CommandLine.Result result = await CommandLine.RunAsync("serve", "-m", CommandLine.Model, "--port", port, "-ngl", "0", "-t", "2");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains(port, result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    // The address is of a range for documentation, which no device has.
    [Fact]
    public async Task An_address_of_no_device_is_one_line()
    {
        CommandLine.Result result = await CommandLine.RunAsync("serve", "-m", CommandLine.Model, "--host", "192.0.2.1", "--port", "8080", "-ngl", "0", "-t", "2");
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("cannot listen on port 8080 of 192.0.2.1", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_file_as_the_folder_of_prefixes_names_the_option()
    {
        CommandLine.Result result = await CommandLine.RunAsync("serve", "-m", CommandLine.Model, "--prefix-path", CommandLine.Model, "--port", "0", "-ngl", "0", "-t", "2");
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("--prefix-path is", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Texts_after_a_kill_are_those_without_the_disk_tier()
    {
        string[] prompts = [.. Enumerable.Range(0, 24).Select(i => $"{i} is the number of a long and rather dull story about a cat, a mat, {i + 7} birds and the sea. It begins")];
        string[] expected;
        await using (Server plain = await Server.StartAsync("-np", "4", "-c", "512"))
        {
            expected = await Task.WhenAll(prompts.Select(async prompt => (await plain.CompleteAsync(prompt)).Text));
        }

        string[] options = ["-np", "4", "-c", "512", "--cache-ram", "0", "--prefix-path", Path.Combine(_folder, "prefixes")];
        int restored = 0;
        for (int round = 0; round < 3; round++)
        {
            await using Server server = await Server.StartAsync(options);
            (string Text, int Cached)[] first = await Task.WhenAll(prompts.Take(8).Select(server.CompleteAsync));
            Assert.Equal(expected[..8], first.Select(answer => answer.Text));
            restored += round > 0 ? first.Count(answer => answer.Cached > 0) : 0;
            Task[] running = [.. prompts.Skip(8).Select(server.CompleteAsync)];
            while (running.Count(task => task.IsCompleted) < 4 + (4 * round))
            {
                await Task.Delay(1);
            }

            await server.SignalAsync("KILL");
            Assert.NotEqual(0, await server.ExitAsync());
            await Task.WhenAny(Task.WhenAll(running), Task.Delay(TimeSpan.FromSeconds(20)));
            Assert.All(running, task => Assert.True(task.IsCompleted));
            if (round == 1)
            {
                Damage(Directory.GetFiles(Path.Combine(_folder, "prefixes"), "*.prefix"));
            }
        }

        Assert.True(restored > 0, "No prefix came from the disk.");
    }

    // What a full disk or a failing one leaves: files that are cut, and files with wrong bytes.
    private static void Damage(string[] files)
    {
        Assert.NotEmpty(files);
        for (int i = 0; i < files.Length; i += 2)
        {
            byte[] bytes = File.ReadAllBytes(files[i]);
            bytes[bytes.Length * 3 / 4] ^= 0x10;
            File.WriteAllBytes(files[i], i % 4 == 0 ? bytes : bytes[..(bytes.Length / 2)]);
        }
    }

    /// <summary>One server for the tests that do not stop it.</summary>
    public sealed class SharedServer : IAsyncLifetime
    {
        internal Server Server { get; private set; } = null!;

        public async ValueTask InitializeAsync() => Server = await Server.StartAsync("-c", "2048");

        public ValueTask DisposeAsync() => Server.DisposeAsync();
    }

    internal sealed class Server : IAsyncDisposable
    {
        private readonly Process _process;
        private readonly Task<string> _error;

        private Server(Process process, string address)
        {
            _process = process;
            _error = process.StandardError.ReadToEndAsync();
            Http = new HttpClient { BaseAddress = new Uri(address), Timeout = TimeSpan.FromMinutes(2) };
        }

        public HttpClient Http { get; }

        public static Task<Server> StartAsync(params string[] options) => StartAsync(wait: true, options);

        public static async Task<Server> StartAsync(bool wait, params string[] options)
        {
            Process process = CommandLine.Start("llama-kivi", ["serve", .. options.Contains("--models") ? Array.Empty<string>() : ["-m", CommandLine.Model], "--port", "0", "-ngl", "0", "-t", "2", .. options]);
            string address = "";
            while (address.Length == 0 && await process.StandardOutput.ReadLineAsync() is { } line)
            {
                address = Address().Match(line).Value;
            }

            var server = new Server(process, address);
            while (wait && (await server.Http.GetAsync("/health")).StatusCode != HttpStatusCode.OK)
            {
                await Task.Delay(20);
            }

            return server;
        }

        public async Task<(string Text, int Cached)> CompleteAsync(string prompt)
        {
            using HttpResponseMessage response = await Http.PostAsync("/v1/completions", Json($$$"""{"prompt":{{{JsonSerializer.Serialize(prompt)}}},"max_tokens":12,"temperature":0,"logit_bias":{"2":-100}}"""));
            string text = await response.Content.ReadAsStringAsync();
            Assert.True(response.IsSuccessStatusCode, text);
            JsonElement body = JsonElement.Parse(text);
            return (body.GetProperty("choices")[0].GetProperty("text").GetString()!, body.GetProperty("usage").GetProperty("prompt_tokens_details").GetProperty("cached_tokens").GetInt32());
        }

        public async Task SignalAsync(string signal)
        {
            using Process kill = Process.Start("kill", ["-" + signal, $"{_process.Id}"]);
            await kill.WaitForExitAsync();
        }

        public Task<string> ErrorAsync() => _error;

        public async Task<int> ExitAsync()
        {
            await _process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(60));
            await _error;
            return _process.ExitCode;
        }

        public async ValueTask DisposeAsync()
        {
            Http.Dispose();
            if (!_process.HasExited)
            {
                _process.Kill();
                await _process.WaitForExitAsync();
            }

            _process.Dispose();
        }
    }

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    [GeneratedRegex(@"http://127\.0\.0\.1:\d+", RegexOptions.None, Timeout.Infinite)]
    private static partial Regex Address();
}
