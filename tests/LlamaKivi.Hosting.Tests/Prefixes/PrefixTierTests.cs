using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Prefixes in host memory and on the disk, and whom they are shared with.</summary>
public sealed class PrefixTierTests : IDisposable
{
    private const string Prompt = "one two three four five six seven eight nine ten and then eleven";

    private readonly string _folder = Path.Combine(Directory.CreateTempSubdirectory("llama-kivi-").FullName, "prefixes");

    public void Dispose() => Directory.Delete(Path.GetDirectoryName(_folder)!, recursive: true);

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task Prefixes_survive_a_restart(string type)
    {
        InferenceEngineOptions options = WithDisk() with { KvCache = KvCacheParams.Parse(type) };
        (string text, int none) = await RunAsync(options, Prompt);
        Assert.Equal(0, none);
        string[] files = Directory.GetFiles(_folder);
        Assert.NotEmpty(files);
        if (!OperatingSystem.IsWindows())
        {
            Assert.All(files, file => Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, new FileInfo(file).UnixFileMode));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, new DirectoryInfo(_folder).UnixFileMode);
        }

        (string again, int cached) = await RunAsync(options, Prompt + text + " and");
        Assert.True(cached > 10, $"{cached} tokens came from the disk.");
        (string fresh, _) = await RunAsync(options with { PrefixCache = Engines.Prefixes with { Enabled = false } }, Prompt + text + " and");
        Assert.Equal(fresh, again);
    }

    [Fact]
    public async Task Damaged_files_are_refused_and_deleted()
    {
        await RunAsync(WithDisk(), Prompt);
        string[] files = Directory.GetFiles(_folder, "*.prefix");
        foreach (string file in files)
        {
            byte[] bytes = await File.ReadAllBytesAsync(file);
            bytes[^100] ^= 1;  // in the state
            await File.WriteAllBytesAsync(file, bytes);
        }

        string cut = Path.Combine(_folder, "cut.prefix");
        await File.WriteAllBytesAsync(cut, (await File.ReadAllBytesAsync(files[0]))[..200]);
        await File.WriteAllTextAsync(Path.Combine(_folder, "text.prefix"), "no prefix at all");
        using (InferenceEngine engine = await Engines.StartAsync(WithDisk()))
        {
            Assert.False(File.Exists(cut));
            Assert.False(File.Exists(Path.Combine(_folder, "text.prefix")));
            InferenceStream stream = engine.InferAsync(Prompt + " twelve", Engines.Greedy(6));
            string text = await stream.TextAsync();
            Assert.Equal(0, stream.CachedTokens);
            (string fresh, _) = await RunAsync(WithDisk() with { PrefixCache = Engines.Prefixes with { Enabled = false } }, Prompt + " twelve");
            Assert.Equal(fresh, text);
            await engine.StopAsync(CancellationToken.None);
        }
    }

    [Fact]
    public async Task Files_of_other_settings_stay_and_are_not_used()
    {
        await RunAsync(WithDisk() with { KvCache = KvCacheParams.Parse("f16") }, Prompt);
        string[] files = Directory.GetFiles(_folder);
        (_, int cached) = await RunAsync(WithDisk() with { KvCache = KvCacheParams.Parse("kivi2") }, Prompt + " twelve");
        Assert.Equal(0, cached);
        (_, cached) = await RunAsync(WithDisk() with { KvCache = KvCacheParams.Parse("f16") }, Prompt + " twelve");
        Assert.True(cached > 5, $"With the same settings {cached} tokens come from the disk.");
        Assert.All(files, file => Assert.True(File.Exists(file)));
    }

    [Theory]
    [InlineData("RoPE base")]
    [InlineData("metadata")]
    public async Task States_of_other_RoPE_settings_are_not_used(string what)
    {
        (string text, _) = await RunAsync(WithDisk(), Prompt);
        string[] files = Directory.GetFiles(_folder);
        InferenceEngineOptions other = what == "metadata"
            ? WithDisk() with { MetadataOverrides = [new MetadataOverride("llama.rope.freq_base", 20000f)] }
            : WithDisk() with { RopeFrequencyBase = 20000 };
        (string again, int cached) = await RunAsync(other, Prompt + text + " and");
        Assert.Equal(0, cached);
        Assert.All(files, file => Assert.True(File.Exists(file), "A file of other settings stays for them."));
        (string fresh, _) = await RunAsync(other with { PrefixCache = Engines.Prefixes with { Enabled = false } }, Prompt + text + " and");
        Assert.Equal(fresh, again);
    }

    [Fact]
    public async Task The_disk_tier_keeps_its_budget()
    {
        await RunAsync(WithDisk(), Prompt);
        long one = Directory.GetFiles(_folder).Max(file => new FileInfo(file).Length);
        InferenceEngineOptions small = WithDisk() with { PrefixCache = Engines.Prefixes with { DiskPath = _folder, DiskBytes = 2 * one, HostBytes = 0 } };
        for (int i = 0; i < 4; i++)
        {
            await RunAsync(small, $"{i} {Prompt}");
        }

        Assert.InRange(Directory.GetFiles(_folder).Sum(file => new FileInfo(file).Length), 1, (2 * one) + 1000);
    }

    // A full disk refuses as many prefixes as are evicted.
    [Fact]
    public async Task A_folder_that_cannot_be_written_is_one_warning_without_a_stack_trace()
    {
        var log = new RecordingLogger();
        using (var engine = new InferenceEngine(WithDisk(), log))
        {
            await engine.StartAsync(CancellationToken.None);
            await engine.WaitUntilReadyAsync();
            for (int i = 0; i < 3; i++)
            {
                await engine.InferAsync($"{i} {Prompt}", Engines.Greedy(2)).TextAsync();
            }

            Directory.Delete(_folder, recursive: true);
            await File.WriteAllTextAsync(_folder, "a file in the folder's place");
            await engine.StopAsync(CancellationToken.None);
        }

        (_, string message, Exception? error) = Assert.Single(log.Lines, line => line.Level == Microsoft.Extensions.Logging.LogLevel.Warning);
        Assert.Contains($"'{_folder}' cannot be written, ", message, StringComparison.Ordinal);
        Assert.Null(error);
    }

    [Fact]
    public async Task Isolated_prefixes_are_shared_by_requests_of_one_key()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options() with { PrefixCache = Engines.Prefixes with { Isolation = true } });
        async Task<int> CachedAsync(string? key)
        {
            InferenceStream stream = engine.InferAsync(Prompt + " twelve", Engines.Greedy(2) with { PrefixKey = key });
            await stream.TextAsync();
            return stream.CachedTokens;
        }

        async Task FirstAsync(string? key) => await engine.InferAsync(Prompt, Engines.Greedy(1) with { PrefixKey = key }).TextAsync();
        await FirstAsync("alice");
        Assert.Equal(0, await CachedAsync("bob"));
        Assert.Equal(0, await CachedAsync(null));
        Assert.True(await CachedAsync("alice") > 5);

        using InferenceEngine shared = await Engines.StartAsync(Engines.Options());
        await shared.InferAsync(Prompt, Engines.Greedy(1) with { PrefixKey = "alice" }).TextAsync();
        InferenceStream other = shared.InferAsync(Prompt + " twelve", Engines.Greedy(1) with { PrefixKey = "bob" });
        await other.TextAsync();
        Assert.True(other.CachedTokens > 5, "Without isolation the key has no effect.");
    }

    [Fact]
    public async Task Prefixes_leave_for_host_memory_within_its_budget()
    {
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options() with { PrefixCache = Engines.Prefixes with { MaxEntries = 1 } });
        await engine.InferAsync(Prompt, Engines.Greedy(1)).TextAsync();
        await engine.InferAsync("red green blue yellow black white", Engines.Greedy(1)).TextAsync();
        InferenceStream back = engine.InferAsync(Prompt + " twelve", Engines.Greedy(1));
        await back.TextAsync();
        Assert.True(back.CachedTokens > 5, "The prefix was in host memory.");

        using InferenceEngine none = await Engines.StartAsync(Engines.Options() with { PrefixCache = Engines.Prefixes with { MaxEntries = 0 } });
        await none.InferAsync(Prompt, Engines.Greedy(1)).TextAsync();
        InferenceStream again = none.InferAsync(Prompt + " twelve", Engines.Greedy(1));
        await again.TextAsync();
        Assert.Equal(0, again.CachedTokens);
    }

    private InferenceEngineOptions WithDisk() => Engines.Options() with { PrefixCache = Engines.Prefixes with { DiskPath = _folder } };

    private static async Task<(string Text, int Cached)> RunAsync(InferenceEngineOptions options, string prompt)
    {
        using InferenceEngine engine = await Engines.StartAsync(options);
        InferenceStream stream = engine.InferAsync(prompt, Engines.Greedy(6));
        string text = await stream.TextAsync();
        await engine.StopAsync(CancellationToken.None);
        return (text, stream.CachedTokens);
    }
}
