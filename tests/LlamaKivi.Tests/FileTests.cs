using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>Writing files, and messages about files that cannot be read or written.</summary>
public sealed class FileTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-files").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string At(string name) => Path.Combine(_folder, name);

    private static void Write(string path) => WholeFile.Write(path, stream => stream.Write("new"u8));

    [Fact]
    public void A_link_is_followed_and_stays()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "Links need a privilege there.");
        Directory.CreateDirectory(At("there"));
        File.WriteAllText(At("there/target"), "old");
        File.CreateSymbolicLink(At("link"), "there/target");
        File.CreateSymbolicLink(At("to-link"), At("link"));
        Write(At("to-link"));
        Assert.Equal("new", File.ReadAllText(At("there/target")));
        Assert.NotNull(new FileInfo(At("link")).LinkTarget);
        Assert.NotNull(new FileInfo(At("to-link")).LinkTarget);
        File.CreateSymbolicLink(At("to-nothing"), "there/made");
        Write(At("to-nothing"));
        Assert.Equal("new", File.ReadAllText(At("there/made")));
        File.CreateSymbolicLink(At("circle"), "circle");
        Assert.ThrowsAny<IOException>(() => Write(At("circle")));
        Assert.Equal(["made", "target"], Directory.GetFiles(At("there")).Select(Path.GetFileName).Order());
    }

    [Fact]
    public void A_read_only_file_is_not_replaced_and_permissions_are_kept()
    {
        if (OperatingSystem.IsWindows())
        {
            Assert.Skip("Permissions are others there.");
            return;
        }

        File.WriteAllText(At("kept"), "kept");
        File.SetUnixFileMode(At("kept"), UnixFileMode.UserRead | UnixFileMode.OtherRead);
        Assert.Contains("read-only", Assert.Throws<UnauthorizedAccessException>(() => Write(At("kept"))).Message, StringComparison.Ordinal);
        Assert.Equal("kept", File.ReadAllText(At("kept")));
        File.WriteAllText(At("private"), "old");
        File.SetUnixFileMode(At("private"), UnixFileMode.UserRead | UnixFileMode.UserWrite);
        Write(At("private"));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(At("private")));
        Assert.Equal(2, Directory.GetFiles(_folder).Length);
    }

    [Fact]
    public void The_longest_name_works_and_temporary_names_do_not_show()
    {
        string longest = At(new string('n', 255));
        Write(longest);
        Assert.True(File.Exists(longest));
        foreach (string path in (string[])[At("nowhere/at/all"), At(new string('n', 256)), _folder])
        {
            Exception e = Assert.ThrowsAny<IOException>(() => Write(path));
            Assert.Contains($"'{path}'", e.Message, StringComparison.Ordinal);
            Assert.DoesNotContain(".part", e.Message, StringComparison.Ordinal);
        }

        if (Directory.Exists("/dev/shm"))
        {
            string shared = $"/dev/shm/llama-kivi-test-{Environment.ProcessId}";
            Write(shared);
            File.Delete(shared);
        }
    }

    [Fact]
    public async Task Every_path_that_holds_a_saved_state_is_named_in_the_error()
    {
        var parameters = new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 200, KvCache = KvCacheParams.Parse("f16") };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using LLamaContext context = weights.CreateContext(parameters);
        using var batched = new BatchedExecutor(weights, parameters);
        var executor = new InteractiveExecutor(context);
        var session = new ChatSession(executor);
        string broken = At("broken");
        session.SaveSession(broken);
        File.WriteAllText(Path.Combine(broken, ChatSession.MODEL_STATE_FILENAME), "nonsense");
        string file = At("state");
        File.WriteAllText(file, "nonsense and more of it");
        (string Path, Func<Task> Read)[] reads =
        [
            (file, Read(() => context.LoadState(file))),
            (file, Read(() => context.LoadState(file, (LLamaSeqId)0))),
            (file, Read(() => batched.Load(file))),
            (file, () => executor.LoadState(file)),
            (broken, Read(() => session.LoadSession(broken))),
            (broken, Read(() => SessionState.Load(broken))),
        ];
        foreach ((string path, Func<Task> read) in reads)
        {
            StateLoadException e = await Assert.ThrowsAsync<StateLoadException>(read);
            Assert.Contains($"'{path}", e.Message, StringComparison.Ordinal);
        }

        static Func<Task> Read(Action action) => () =>
        {
            action();
            return Task.CompletedTask;
        };
    }

    [Fact]
    public async Task A_folder_is_named_where_a_state_s_file_is_needed()
    {
        var parameters = new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 200, KvCache = KvCacheParams.Parse("f16") };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using LLamaContext context = weights.CreateContext(parameters);
        using var batched = new BatchedExecutor(weights, parameters);
        var executor = new InteractiveExecutor(context);
        string folder = At("folder");
        Directory.CreateDirectory(folder);
        Func<Task>[] reads =
        [
            Read(() => context.LoadState(folder)),
            Read(() => context.LoadState(folder, (LLamaSeqId)0)),
            Read(() => batched.Load(folder)),
            () => executor.LoadState(folder),
            Read(() => executor.WithSessionFile(folder)),
        ];
        foreach (Func<Task> read in reads)
        {
            StateLoadException e = await Assert.ThrowsAsync<StateLoadException>(read);
            Assert.Contains(folder, e.Message, StringComparison.Ordinal);
            Assert.Contains("is a folder; name the", e.Message, StringComparison.Ordinal);
        }

        ModelLoadException model = Assert.Throws<ModelLoadException>(() => LLamaWeights.LoadFromFile(new ModelParams(folder)));
        Assert.Contains($"'{folder}': it is a directory, expected a file", model.Message, StringComparison.Ordinal);

        static Func<Task> Read(Action action) => () =>
        {
            action();
            return Task.CompletedTask;
        };
    }

    [Fact]
    public void A_state_that_does_not_fit_says_used_needed_and_capacity()
    {
        var parameters = new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 200, SeqMax = 3, KvCache = KvCacheParams.Parse("f16") };
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using LLamaContext context = weights.CreateContext(parameters);
        context.Handle.Decode([.. Enumerable.Range(1, 120)]);
        context.SaveState(At("state"), (LLamaSeqId)0);
        context.Handle.SeqTruncate(0, 90);
        KvCacheFullException e = Assert.Throws<KvCacheFullException>(() => context.LoadState(At("state"), (LLamaSeqId)1));
        Assert.Contains("90 of 200 tokens used, 120 more needed; raise ContextSize", e.Message, StringComparison.Ordinal);
        Assert.StartsWith($"'{At("state")}'", e.Message, StringComparison.Ordinal);
        Assert.Equal((120L, 110L), (e.Needed, e.Available));
        e = Assert.Throws<KvCacheFullException>(() => context.Handle.Decode([.. Enumerable.Range(1, 111)]));
        Assert.Contains("90 of 200 tokens used, 111 more needed", e.Message, StringComparison.Ordinal);
        Assert.Equal((111L, 110L), (e.Needed, e.Available));
    }
}
