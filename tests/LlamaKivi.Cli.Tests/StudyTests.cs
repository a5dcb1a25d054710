using System.Diagnostics;
using System.Text.Json;
using Xunit;

namespace LlamaKivi.Cli.Tests;

/// <summary>`analyze` and `eval` as separate processes.</summary>
public sealed class StudyTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-study").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    [Fact]
    public async Task Analyze_measures_errors_along_both_axes_and_by_cache_type()
    {
        string text = Path.Combine(_folder, "text.txt");
        await File.WriteAllTextAsync(text, string.Concat(Enumerable.Range(0, 200).Select(i => $"The train number {i} leaves the station in the morning, and {i * 7} people wait for it. ")));
        CommandLine.Result result = await CommandLine.RunAsync(
            "analyze", "-f", text, "-c", "256", "--max-tokens", "512", "--layers", "1,4", "--kv-cache", "f16,kivi4,kivi2,kivi2-paper", "-o", Path.Combine(_folder, "maps"), "--json");
        Assert.Equal(0, result.ExitCode);
        JsonElement root = JsonDocument.Parse(result.Out).RootElement;
        Assert.Equal(512, root.GetProperty("tokens").GetInt32());
        JsonElement[] variants = [.. root.GetProperty("variants").EnumerateArray()];
        JsonElement Plain(string name, int bits, int group) => variants.Single(v =>
            v.GetProperty("name").GetString() == name && v.TryGetProperty("bits", out JsonElement b) && b.GetInt32() == bits && v.GetProperty("group").GetInt32() == group);
        double Error(JsonElement variant, string what) => variant.GetProperty(what).GetDouble();
        Assert.Equal(3, Error(Plain("keys per channel", 2, 32), "bits_per_element"));
        Assert.True(Error(Plain("keys per channel", 2, 32), "k_error") < Error(Plain("keys per token", 2, 32), "k_error"));
        Assert.True(Error(Plain("keys per channel", 4, 32), "k_error") < Error(Plain("keys per channel", 2, 32), "k_error"));
        Assert.Equal(0, Error(Plain("keys per channel", 2, 32), "v_error"));
        Assert.Equal(0, Error(Plain("values per token", 2, 32), "weights_error"), 6);
        Assert.True(Error(Plain("values per token", 2, 32), "output_error") > 0.01);

        Assert.Equal(2.5625, Error(variants.Single(v => v.GetProperty("name").GetString() == "kivi2"), "bits_per_element"), 3);
        double Output(string cache) => Error(variants.Single(v => v.GetProperty("name").GetString() == cache), "output_error");
        Assert.InRange(Output("f16"), 1e-6, 2e-3);
        Assert.True(Output("f16") < Output("kivi4") && Output("kivi4") < Output("kivi2") && Output("kivi2") < Output("kivi2-paper"));
        Assert.Equal(["1", "4"], variants[0].GetProperty("layers").EnumerateObject().Select(l => l.Name));
        Assert.Equal([1, 4], root.GetProperty("layers").EnumerateArray().Select(l => l.GetProperty("layer").GetInt32()));
        Assert.Equal(2, Directory.GetFiles(Path.Combine(_folder, "maps"), "analyze-layer-*.png").Length);

        CommandLine.Result bad = await CommandLine.RunAsync("analyze", "-f", text, "--layers", "99");
        Assert.Equal(2, bad.ExitCode);
        Assert.Contains("layers 0 to 9", bad.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Eval_resumes_and_scores_the_same()
    {
        string task = WriteTask();
        string[] arguments = ["eval", "--task", task, "--kv-cache", "f16,kivi2", "-n", "6", "-c", "512", "-npl", "2", "--json"];
        CommandLine.Result whole = await CommandLine.RunAsync([.. arguments, "-o", Path.Combine(_folder, "a")]);
        Assert.Equal(0, whole.ExitCode);
        Assert.Contains("task.jsonl:3: ", whole.Error, StringComparison.Ordinal);
        Assert.Contains("task.jsonl:4: 'answers' and 'choices' are both missing", whole.Error, StringComparison.Ordinal);
        Assert.Contains("task.jsonl:5: 'gold' names none of the 2 choices", whole.Error, StringComparison.Ordinal);

        // Interrupted after two of five rows, with the second one half written.
        string folder = Path.Combine(_folder, "b");
        string kept = Path.Combine(folder, "task-f16.jsonl");
        using (Process process = CommandLine.Start("llama-kivi", [.. arguments, "-o", folder]))
        {
            while (!process.HasExited && (!File.Exists(kept) || LinesOf(kept).Length < 3))
            {
                await Task.Delay(1, TestContext.Current.CancellationToken);
            }

            process.Kill();
            await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        }

        string[] left = await File.ReadAllLinesAsync(kept, TestContext.Current.CancellationToken);
        Assert.InRange(left.Length, 3, 6);
        await File.WriteAllTextAsync(kept, string.Join('\n', left[..2]) + "\n" + left[2][..20], TestContext.Current.CancellationToken);
        CommandLine.Result again = await CommandLine.RunAsync([.. arguments, "-o", folder]);
        Assert.Equal(0, again.ExitCode);
        Assert.Equal(Scores(whole.Out), Scores(again.Out));
        foreach (string file in (string[])["task-f16.jsonl", "task-kivi2.jsonl"])
        {
            Assert.Equal(LinesOf(Path.Combine(_folder, "a", file)).Order(StringComparer.Ordinal), LinesOf(Path.Combine(folder, file)).Order(StringComparer.Ordinal));
        }

        // A run with other settings does not reuse these rows.
        CommandLine.Result other = await CommandLine.RunAsync("eval", "--task", task, "--kv-cache", "kivi2", "-n", "7", "-o", folder);
        Assert.Equal(2, other.ExitCode);
        Assert.Contains("task-kivi2.jsonl belongs to a run with other settings", other.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Published_row_shapes_are_read_through_field_names()
    {
        string gsm = Path.Combine(_folder, "gsm.jsonl");
        await File.WriteAllLinesAsync(gsm, ["""{"question": "Two and three are", "answer": "Count on. #### 5"}""", """{"question": "One and one are", "answer": "#### 2"}"""]);
        CommandLine.Result result = await CommandLine.RunAsync("eval", "--task", gsm, "--fields", "prompt=question,answers=answer", "--metrics", "last_number", "--kv-cache", "f16", "-n", "4", "--shots", "1", "--json");
        Assert.Equal(0, result.ExitCode);
        Assert.Equal(1, JsonDocument.Parse(result.Out).RootElement[0].GetProperty("rows").GetInt32());

        string longBench = Path.Combine(_folder, "longbench.jsonl");
        await File.WriteAllTextAsync(longBench, """{"input": "Where is the key?", "context": "The key is under the mat.", "answers": ["under the mat"], "length": 9}""");
        result = await CommandLine.RunAsync("eval", "--task", longBench, "--prompt-format", "{context}\\n\\n{input}\\nAnswer:", "--metrics", "f1,rouge_l", "--kv-cache", "f16", "-n", "4", "--json");
        Assert.Equal(0, result.ExitCode);
        Assert.Equal(["f1", "rouge_l"], JsonDocument.Parse(result.Out).RootElement.EnumerateArray().Select(c => c.GetProperty("metric").GetString()));
    }

    [Fact]
    public async Task Choices_that_differ_in_blanks_score_differently()
    {
        // The spaces before "return" form tokens with the end of the prompt or with each other.
        string task = Path.Combine(_folder, "code.jsonl");
        await File.WriteAllLinesAsync(task,
        [
            """{"prompt": "def f(x):\n", "choices": ["  return x", "    return x"], "gold": 0}""",
            """{"prompt": "def f(x):", "choices": ["  return x", "    return x"], "gold": 0}""",
            """{"prompt": "The sea is  ", "choices": ["deep", " deep"], "gold": 0}""",
        ]);
        CommandLine.Result result = await CommandLine.RunAsync("eval", "--task", task, "--kv-cache", "f16", "-c", "128", "-o", _folder);
        Assert.Equal(0, result.ExitCode);
        double[][] likelihoods = [.. LinesOf(Path.Combine(_folder, "code-f16.jsonl")).Skip(1)
            .Select(line => JsonDocument.Parse(line).RootElement.GetProperty("loglikelihoods").EnumerateArray().Select(l => l.GetDouble()).ToArray())];
        Assert.Equal(3, likelihoods.Length);
        Assert.All(likelihoods, row => Assert.NotEqual(row[0], row[1], 0.01));
    }

    // Readable while another process writes the file.
    private static string[] LinesOf(string path)
    {
        using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        return reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    private static List<string> Scores(string json) =>
        [.. JsonDocument.Parse(json).RootElement.EnumerateArray().Select(c => $"{c.GetProperty("kv_cache")} {c.GetProperty("metric")} {c.GetProperty("score")} {c.GetProperty("difference")}")];

    private string WriteTask()
    {
        string path = Path.Combine(_folder, "task.jsonl");
        string filler = string.Concat(Enumerable.Repeat("The harbor was quiet in the morning, and the boats lay still. ", 16));
        string[] rows =
        [
            .. Enumerable.Range(0, 2).Select(i => JsonSerializer.Serialize($"{filler} The pass key is {4711 + i}. What is the pass key? The pass key is")).Select((prompt, i) => $$"""{"prompt": {{prompt}}, "answers": ["{{4711 + i}}"]}"""),
            "this is no JSON",
            """{"prompt": "A"}""",
            """{"prompt": "A", "choices": ["b", "c"], "gold": 2}""",
            .. Enumerable.Range(0, 3).Select(i => JsonSerializer.Serialize($"{filler} Question: what lay still? Answer {i}:")).Select(prompt => $$"""{"messages": [{"role": "user", "content": {{prompt}}}], "choices": ["the boats", "the moon"], "gold": "the boats"}"""),
        ];
        File.WriteAllLines(path, rows);
        return path;
    }
}
