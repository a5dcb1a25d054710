using LlamaKivi.Cli.Hub;

namespace LlamaKivi.Cli.Tests.Hub;

public sealed class HubDownloadTests : IDisposable
{
    private const string File4 = "model-Q4_K_M.gguf";

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-hub-").FullName;
    private readonly byte[] _content = Content(300_000);
    private readonly List<string> _messages = [];

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_model_is_downloaded_once_and_laid_out_as_other_clients_expect()
    {
        using var server = new HubServer((File4, _content), ("model-Q8_0.gguf", Content(5)), ("README.md", Content(3)));

        string path = await GetAsync(server);
        string again = await GetAsync(server);

        string repository = Path.Combine(_folder, "models--owner--model-GGUF");
        Assert.Equal(Path.Combine(repository, "snapshots", HubServer.Commit, File4), path);
        Assert.Equal(path, again);
        Assert.Equal(_content, await File.ReadAllBytesAsync(path));
        Assert.Single(server.Downloads);
        Assert.Equal(HubServer.Commit, await File.ReadAllTextAsync(Path.Combine(repository, "refs", "main")));
        Assert.Empty(Directory.GetFiles(Path.Combine(repository, "blobs"), "*.incomplete"));
        if (!OperatingSystem.IsWindows())
        {
            Assert.StartsWith("../../blobs/", new FileInfo(path).LinkTarget, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_file_whose_blob_was_deleted_is_downloaded_again()
    {
        using var server = new HubServer((File4, _content));
        string path = await GetAsync(server);
        foreach (string blob in Directory.GetFiles(Path.Combine(_folder, "models--owner--model-GGUF", "blobs")))
        {
            File.Delete(blob);
        }

        Assert.Equal(path, await GetAsync(server));
        Assert.Equal(_content, await File.ReadAllBytesAsync(path));
    }

    [Fact]
    public async Task A_broken_connection_is_continued_where_it_broke()
    {
        using var server = new HubServer((File4, _content));
        server.Breaks.Enqueue(100_000);
        server.Breaks.Enqueue(0);
        server.Breaks.Enqueue(50_000);

        string path = await GetAsync(server);

        Assert.Equal(_content, await File.ReadAllBytesAsync(path));
        Assert.Equal([null, "bytes=100000-", "bytes=100000-", "bytes=150000-"], server.Downloads.Select(download => download.Headers.GetValueOrDefault("Range")));
    }

    [Fact]
    public async Task A_download_that_was_given_up_is_continued_by_the_next_program()
    {
        using var server = new HubServer((File4, _content));
        server.Breaks.Enqueue(100_000);
        for (int i = 0; i < 5; i++)
        {
            server.Breaks.Enqueue(0);
        }

        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server));
        Assert.Contains($"{File4} broke at 100000 of 300000 bytes", e.Message, StringComparison.Ordinal);
        Assert.Contains("the same command continues it", e.Message, StringComparison.Ordinal);

        string path = await GetAsync(server);
        Assert.Equal(_content, await File.ReadAllBytesAsync(path));
        Assert.Equal("bytes=100000-", server.Downloads.Last().Headers["Range"]);
    }

    [Fact]
    public async Task A_server_without_ranges_starts_again()
    {
        using var server = new HubServer((File4, _content)) { HasRanges = false };
        server.Breaks.Enqueue(100_000);
        Assert.Equal(_content, await File.ReadAllBytesAsync(await GetAsync(server)));
    }

    [Fact]
    public async Task A_damaged_file_is_deleted_and_both_checksums_are_named()
    {
        using var server = new HubServer((File4, _content)) { Checksum = new string('a', 64) };
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server));
        Assert.Contains($"the hub's is {new string('a', 64)}", e.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFiles(_folder, "*", SearchOption.AllDirectories));
    }

    [Fact]
    public async Task Offline_uses_the_cache_and_sends_nothing()
    {
        using var server = new HubServer((File4, _content));
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server, offline: true));
        Assert.Contains("HF_HUB_OFFLINE", e.Message, StringComparison.Ordinal);
        Assert.Empty(server.Requests);

        string path = await GetAsync(server);
        int sent = server.Requests.Count;
        Assert.Equal(path, await GetAsync(server, offline: true));
        Assert.Equal(sent, server.Requests.Count);
    }

    [Fact]
    public async Task A_hub_that_is_not_reached_leaves_the_cache_and_says_so()
    {
        string path;
        using (var server = new HubServer((File4, _content)))
        {
            path = await GetAsync(server);
            server.Errors = 1;
            Assert.Equal(path, await GetAsync(server));
            Assert.Contains("using the cached", _messages[^1], StringComparison.Ordinal);
        }

        var nowhere = new HubSettings("http://127.0.0.1:1", Path.Combine(_folder, "empty"), null, IsOffline: false);
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(nowhere, "owner/model-GGUF"));
        Assert.Contains("http://127.0.0.1:1 was not reached", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_token_is_sent_to_the_hub_and_to_no_other_host()
    {
        using var server = new HubServer((File4, _content)) { Token = "secret" };
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server));
        Assert.Contains("set HF_TOKEN", e.Message, StringComparison.Ordinal);

        e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server, token: "wrong"));
        Assert.Contains("may not read it", e.Message, StringComparison.Ordinal);

        Assert.Equal(_content, await File.ReadAllBytesAsync(await GetAsync(server, token: "secret")));
        Assert.DoesNotContain("Authorization", Assert.Single(server.Downloads).Headers);
    }

    [Theory]
    [InlineData(":q8_0", "model-Q8_0.gguf")]
    [InlineData(":Q4_0", "model-Q4_0.gguf")]
    [InlineData("", File4)]
    public async Task The_file_of_the_type_is_chosen(string suffix, string expected)
    {
        using var server = new HubServer(("model-Q4_0_4_4.gguf", Content(1)), ("model-Q4_0.gguf", Content(2)), ("model-Q8_0.gguf", Content(3)), (File4, Content(4)), ("mmproj-Q8_0.gguf", Content(5)));
        Assert.EndsWith(expected, await GetAsync(Settings(server), "owner/model-GGUF" + suffix), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("owner/model-GGUF:Q2_K", "has no file of Q2_K; it has model-Q4_K_M.gguf")]
    [InlineData("owner/model-GGUF:Q5_K_M", "one part of a model in several files")]
    [InlineData("owner/other", "has no owner/other; check the name")]
    public async Task What_cannot_be_had_is_said(string reference, string expected)
    {
        using var server = new HubServer((File4, _content), ("model-Q5_K_M-00001-of-00002.gguf", _content));
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(Settings(server), reference));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("<html>")]
    [InlineData("""{ "sha": "../../x", "siblings": [] }""")]
    [InlineData("""{ "siblings": [] }""")]
    [InlineData($$"""{ "sha": "{{HubServer.Commit}}", "siblings": [ { "rfilename": "../../../model-Q4_K_M.gguf", "size": 1 } ] }""")]
    [InlineData($$"""{ "sha": "{{HubServer.Commit}}", "siblings": [ { "rfilename": "a\\b-Q4_K_M.gguf", "size": 1 } ] }""")]
    public async Task An_answer_that_is_not_a_hub_s_writes_nothing(string list)
    {
        using var server = new HubServer((File4, _content)) { List = list };
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server));
        Assert.Contains("not a hub's", e.Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(_folder));
    }

    [Fact]
    public async Task A_file_without_a_size_is_refused_before_the_download()
    {
        string checksum = new('a', 64);
        using var server = new HubServer((File4, _content))
        {
            List = $$"""{ "sha": "{{HubServer.Commit}}", "siblings": [ { "rfilename": "{{File4}}", "lfs": { "sha256": "{{checksum}}" } } ] }""",
        };
        var e = await Assert.ThrowsAsync<HubException>(() => GetAsync(server));
        Assert.Contains($"gave no size or no checksum of {File4}", e.Message, StringComparison.Ordinal);
        Assert.Empty(server.Downloads);
    }

    [Theory]
    [InlineData("")]
    [InlineData("model")]
    [InlineData("a/b/c")]
    [InlineData("../b")]
    [InlineData("a/..")]
    [InlineData("a/b..c")]
    [InlineData("a/b:")]
    [InlineData("a/b:Q4/x")]
    public void A_text_that_is_no_repository_is_refused(string text) => Assert.Throws<UsageException>(() => HubReference.Parse(text));

    [Fact]
    public void Settings_come_from_the_variables_of_other_clients()
    {
        var variables = new Dictionary<string, string> { ["HF_HOME"] = "/home", ["HF_TOKEN"] = "t", ["HF_HUB_OFFLINE"] = "1", ["HF_ENDPOINT"] = "http://mirror/" };
        Assert.Equal(new HubSettings("http://mirror", Path.Combine("/home", "hub"), "t", IsOffline: true), HubSettings.From(variables.GetValueOrDefault));
        variables["HF_HUB_CACHE"] = "/cache";
        variables["HF_HUB_OFFLINE"] = "0";
        Assert.Equal(new HubSettings("http://mirror", "/cache", "t", IsOffline: false), HubSettings.From(variables.GetValueOrDefault));
    }

    // The hub's name does not resolve: the request reaches the server as a proxy.
    [Fact]
    public async Task The_command_line_downloads_through_a_proxy()
    {
        using var server = new HubServer((File4, await File.ReadAllBytesAsync(CommandLine.Model)));
        (string, string)[] environment = [("HF_ENDPOINT", "http://hub.invalid"), ("HF_HUB_CACHE", _folder), ("HTTP_PROXY", server.Endpoint), ("http_proxy", server.Endpoint), ("HF_TOKEN", "secret")];
        string[] arguments = ["tokenize", "-hf", "owner/model-GGUF:Q4_K_M", "-p", "The cache"];

        CommandLine.Result result = await CommandLine.RunAsync("llama-kivi", "", arguments, environment);
        CommandLine.Result expected = await CommandLine.RunAsync("tokenize", "-p", "The cache");

        Assert.True(result.ExitCode == 0, result.Error);
        Assert.Equal(expected.Out, result.Out);
        Assert.Contains($"downloading {File4} of owner/model-GGUF", result.Error, StringComparison.Ordinal);

        result = await CommandLine.RunAsync("llama-kivi", "", [.. arguments, "-m", "x.gguf"], environment);
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("-m and -hf are both given", result.Error, StringComparison.Ordinal);
    }

    private static byte[] Content(int size)
    {
        byte[] bytes = new byte[size];
        new Random(size).NextBytes(bytes);
        return bytes;
    }

    private HubSettings Settings(HubServer server, string? token = null, bool offline = false) => new(server.Endpoint, _folder, token, offline);

    private Task<string> GetAsync(HubServer server, string? token = null, bool offline = false) => GetAsync(Settings(server, token, offline), "owner/model-GGUF");

    private Task<string> GetAsync(HubSettings settings, string reference) =>
        new HubDownload(settings) { FirstWait = TimeSpan.FromMilliseconds(1) }.GetAsync(HubReference.Parse(reference), _messages.Add, new Progress<float>(), TestContext.Current.CancellationToken);
}
