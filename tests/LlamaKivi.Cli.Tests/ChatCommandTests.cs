using System.Diagnostics;
using Xunit;

namespace LlamaKivi.Cli.Tests;

public sealed class ChatCommandTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-tests").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static Task<CommandLine.Result> ChatAsync(string input, params string[] more) =>
        CommandLine.RunAsync("llama-kivi", input, ["chat", "--temp", "0", "-n", "32", "-t", "1", .. more]);

    // One process saves the conversation, another loads it: the next 32 tokens equal those of an uninterrupted one.
    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    public async Task A_saved_conversation_continues_in_another_process(string type)
    {
        string saved = Path.Combine(_folder, "talk");
        const string First = "What is the borrow checker of the Rust compiler for, and which rules on references does it hold a program to?";
        string[] lines = ["What else is it for?"];
        CommandLine.Result whole = await ChatAsync($"{First}\n/save {saved}\n{lines[0]}\n", "--kv-cache", type);
        CommandLine.Result restored = await ChatAsync($"/load {saved}\n{lines[0]}\n", "--kv-cache", type);
        Assert.Equal(0, restored.ExitCode);
        string expected = whole.Out[whole.Out.IndexOf(saved, StringComparison.Ordinal)..];
        string actual = restored.Out[restored.Out.IndexOf(saved, StringComparison.Ordinal)..];
        Assert.True(expected.Length > saved.Length + 20, expected);
        Assert.Equal(expected, actual);
    }

    [Fact]
    public async Task Commands_answer_and_mistakes_do_not_end_the_program()
    {
        CommandLine.Result result = await ChatAsync("/help\n/what\n/save\n/load /no/such/folder\n\n/stats\nA compiler\n/clear\n/stats\n/exit\nnot read\n");
        Assert.Equal(0, result.ExitCode);
        Assert.Contains("/clear", result.Out, StringComparison.Ordinal);
        Assert.Contains("Unknown command /what", result.Error, StringComparison.Ordinal);
        Assert.Contains("/save needs a folder", result.Error, StringComparison.Ordinal);
        Assert.Contains("/load failed", result.Error, StringComparison.Ordinal);
        Assert.Contains("no chat template", result.Error, StringComparison.Ordinal);
        Assert.Equal(2, result.Out.Split("cache: 0 of").Length - 1);
    }

    // The error is reported, and the conversation continues without the message.
    [Fact]
    public async Task A_message_longer_than_the_context_is_reported_and_the_conversation_continues()
    {
        string many = string.Concat(Enumerable.Repeat("compiler ", 100));
        CommandLine.Result result = await ChatAsync($"{many}\nA compiler\n/stats\n/exit\n", "-c", "64");
        Assert.Equal(0, result.ExitCode);
        Assert.Contains("the context holds 64", result.Error, StringComparison.Ordinal);
        Assert.Contains("has been discarded", result.Error, StringComparison.Ordinal);
        Assert.Matches("[1-9][0-9]* written", result.Out);
    }

    [Fact]
    public async Task A_folder_of_another_cache_type_is_refused_and_the_conversation_continues()
    {
        string saved = Path.Combine(_folder, "talk");
        await ChatAsync($"A compiler\n/save {saved}\n", "--kv-cache", "f16");
        CommandLine.Result result = await ChatAsync($"/load {saved}\nA compiler\n", "--kv-cache", "kivi2");
        Assert.Contains("/load failed", result.Error, StringComparison.Ordinal);
        Assert.NotEqual("", result.Out.Trim());
    }

    [Fact]
    public async Task Ctrl_C_ends_the_answer_and_not_the_program()
    {
        // Shells start background processes with SIGINT ignored, and children inherit that.
        const ulong Signal = 1 << 1;
        string? ignored = OperatingSystem.IsLinux() ? File.ReadLines("/proc/self/status").FirstOrDefault(line => line.StartsWith("SigIgn:", StringComparison.Ordinal)) : null;
        Assert.SkipWhen(ignored is not null && (Convert.ToUInt64(ignored[7..].Trim(), 16) & Signal) != 0, "SIGINT is ignored here.");

        using var timeout = new CancellationTokenSource(TimeSpan.FromMinutes(1));
        using Process process = CommandLine.Start("llama-kivi", "chat", "--temp", "0", "-c", "4096");
        await process.StandardInput.WriteLineAsync("Tell me everything about compilers.");
        await process.StandardInput.FlushAsync(timeout.Token);
        var some = new char[20];
        for (int read = 0; read < some.Length;)
        {
            int n = await process.StandardOutput.ReadAsync(some.AsMemory(read), timeout.Token);
            Assert.True(n > 0, "the program ended");
            read += n;
        }

        await Interrupt.SendAsync(process, timeout.Token);
        await process.StandardInput.WriteLineAsync("/stats");
        process.StandardInput.Close();
        string rest = await process.StandardOutput.ReadToEndAsync(timeout.Token);
        string error = await process.StandardError.ReadToEndAsync(timeout.Token);
        await process.WaitForExitAsync(timeout.Token);
        Assert.Equal(0, process.ExitCode);
        Assert.Contains("[stopped]", error, StringComparison.Ordinal);
        Assert.Contains("of 4096 tokens", rest, StringComparison.Ordinal);
    }

    [Fact]
    public void The_line_editor_edits_and_remembers()
    {
        var keys = new Queue<ConsoleKeyInfo?>();
        var editor = new LineEditor(() => keys.Dequeue(), _ => { });
        Type("ac");
        Press(ConsoleKey.LeftArrow);
        Type("b");
        Assert.Equal("abc", Enter());
        Type("xyz");
        Press(ConsoleKey.Home);
        Press(ConsoleKey.Delete);
        Press(ConsoleKey.End);
        Press(ConsoleKey.Backspace);
        Assert.Equal("y", Enter());
        Type("draft");
        Press(ConsoleKey.UpArrow);
        Press(ConsoleKey.UpArrow);
        Press(ConsoleKey.UpArrow);
        Assert.Equal("abc", Enter());
        Type("draft");
        Press(ConsoleKey.UpArrow);
        Press(ConsoleKey.DownArrow);
        Assert.Equal("draft", Enter());
        Type("one \U0001F600");
        Press(ConsoleKey.Backspace);
        Assert.Equal("one ", Enter());
        Type("gone");
        Press(ConsoleKey.C, control: true);
        Assert.Equal("", editor.ReadLine("> "));
        Type("cut");
        Press(ConsoleKey.LeftArrow);
        Press(ConsoleKey.U, control: true);
        Press(ConsoleKey.E, control: true);
        Assert.Equal("t", Enter());
        Press(ConsoleKey.D, control: true);
        Assert.Null(editor.ReadLine("> "));
        Assert.Equal(["abc", "y", "abc", "draft", "one ", "t"], editor.History);

        void Press(ConsoleKey key, bool control = false) => keys.Enqueue(new ConsoleKeyInfo('\0', key, false, false, control));

        void Type(string text)
        {
            foreach (char c in text)
            {
                keys.Enqueue(new ConsoleKeyInfo(c, ConsoleKey.None, false, false, false));
            }
        }

        string? Enter()
        {
            Press(ConsoleKey.Enter);
            return editor.ReadLine("> ");
        }
    }
}
