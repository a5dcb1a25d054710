using System.Diagnostics;
using System.Text;
using System.Text.Json;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Tests;

/// <summary>Piped text, full contexts, models that a cache type does not fit, output files.</summary>
public sealed class InputTests : IDisposable
{
    private const string Prompt = "The garbage collector";

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-input").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static Task<CommandLine.Result> Pipe(string input, params string[] arguments) => CommandLine.RunAsync("llama-kivi", input, arguments);

    private string At(string name) => Path.Combine(_folder, name);

    [Fact]
    public async Task A_prompt_by_pipe_is_read()
    {
        string[] rest = ["-n", "6", "--temp", "0", "--json"];
        string expected = Text(await CommandLine.RunAsync(["run", "-p", Prompt, .. rest]));
        Assert.StartsWith(Prompt + " is", expected, StringComparison.Ordinal);
        Assert.Equal(expected, Text(await Pipe(Prompt + "\n", ["run", .. rest])));
        Assert.Equal(expected, Text(await Pipe(Prompt, ["run", "-f", "-", .. rest])));
        await File.WriteAllTextAsync(At("prompt"), Prompt + "\r\n", TestContext.Current.CancellationToken);
        Assert.Equal(expected, Text(await CommandLine.RunAsync(["run", "-f", At("prompt"), .. rest])));
        // With a prompt given, standard input is not read.
        Assert.Equal(expected, Text(await Pipe("unread", ["run", "-p", Prompt, .. rest])));

        static string Text(CommandLine.Result result)
        {
            Assert.Equal("", result.Error);
            return JsonDocument.Parse(result.Out).RootElement.GetProperty("text").GetString()!;
        }
    }

    // On Windows a console has a code page of its own, and paths longer than 260 characters need a prefix.
    [Fact]
    public async Task Paths_and_text_of_every_language_and_length_pass_through()
    {
        string folder = Path.Combine([At("modèle-模型-🥝"), .. "abc".Select(letter => new string(letter, 90))]);
        Directory.CreateDirectory(folder);
        string model = Path.Combine(folder, "модель.gguf");
        File.Copy(CommandLine.Model, model);
        const string Text = "Übung 模型 🥝";
        CommandLine.Result result = await Pipe(Text, "run", "-m", model, "-f", "-", "-n", "1", "--temp", "0", "--json");
        Assert.Equal("", result.Error);
        Assert.StartsWith(Text, JsonDocument.Parse(result.Out).RootElement.GetProperty("text").GetString(), StringComparison.Ordinal);
        CommandLine.Result missing = await CommandLine.RunAsync("inspect", model + "x");
        Assert.Contains($"{model}x", missing.Error, StringComparison.Ordinal);
    }

    // An unhandled exception would exit with 134.
    [Theory]
    [InlineData("--help >/dev/full", 1)]
    [InlineData("run --help >/dev/full", 1)]
    [InlineData("run -m none.gguf -p a 2>/dev/full", 1)]
    [InlineData("run -m none.gguf -p a 2>&-", 1)]
    [InlineData("run -n -5 2>/dev/full", 2)]
    public async Task Streams_that_are_full_or_closed_fail_with_an_exit_code(string line, int expected)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "there is no /dev/full");
        string program = Path.Combine(AppContext.BaseDirectory, "llama-kivi.dll");
        using var process = Process.Start("sh", ["-c", $"dotnet '{program}' {line}"]);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        Assert.Equal(expected, process.ExitCode);
    }

    // A command that reads from a closed standard input would wait forever.
    [Theory]
    [InlineData("run")]
    [InlineData("run -f -")]
    [InlineData("tokenize")]
    [InlineData("tokenize -f -")]
    [InlineData("detokenize")]
    [InlineData("logits --ids @- -o never.npy")]
    [InlineData("perplexity -f -")]
    [InlineData("generation -f -")]
    [InlineData("compare -f -")]
    [InlineData("analyze -f -")]
    [InlineData("chat")]
    public async Task A_closed_standard_input_is_refused(string line)
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "closed descriptors are recognized on Linux");
        (int exitCode, string error) = await Shell($"{line} <&-");
        Assert.Equal("llama-kivi: standard input is closed; give the text in the arguments or in a file, or pipe it in", error.TrimEnd());
        Assert.Equal(2, exitCode);
    }

    [Fact]
    public async Task A_closed_standard_input_does_not_matter_where_none_is_read()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "closed descriptors are recognized on Linux");
        Assert.Equal((0, ""), await Shell($"tokenize -p a <&-"));
        Assert.Equal(0, (await Shell($"tokenize </dev/null")).ExitCode);
    }

    [Theory]
    [InlineData("run -f", "name a text file", 2)]
    [InlineData("tokenize -f", "name a text file", 2)]
    [InlineData("perplexity -f", "name a text file", 2)]
    [InlineData("generation -f", "name a text file", 2)]
    [InlineData("compare -f", "name a text file", 2)]
    [InlineData("analyze -f", "name a text file", 2)]
    [InlineData("eval --task", "name a file with one JSON object per line", 1)]
    public async Task A_folder_is_refused_where_a_file_is_needed(string arguments, string advice, int exitCode)
    {
        CommandLine.Result result = await CommandLine.RunAsync([.. arguments.Split(' '), _folder]);
        Assert.Equal($"llama-kivi: cannot read '{_folder}': it is a folder; {advice}", result.Error.TrimEnd());
        Assert.Equal(exitCode, result.ExitCode);
    }

    private static async Task<(int ExitCode, string Error)> Shell(string line)
    {
        string program = Path.Combine(AppContext.BaseDirectory, "llama-kivi.dll");
        using var process = Process.Start(new ProcessStartInfo("timeout", ["30", "sh", "-c", $"exec dotnet '{program}' {line}"])
        {
            RedirectStandardError = true,
            UseShellExecute = false,
            RedirectStandardOutput = true,
        })!;
        Task<string> output = process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        string error = await process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        await output;
        return (process.ExitCode, error);
    }

    [Fact]
    public async Task Other_commands_read_standard_input_too()
    {
        string ids = (await CommandLine.RunAsync("tokenize", "-p", Prompt + "\n")).Out;
        Assert.Equal(ids, (await Pipe(Prompt + "\n", "tokenize")).Out);
        Assert.Equal(ids, (await Pipe(Prompt + "\n", "tokenize", "-f", "-")).Out);
        Assert.Contains(Prompt, (await Pipe(ids, "detokenize")).Out, StringComparison.Ordinal);
        Assert.Equal("", (await Pipe(ids, "logits", "--ids", "@-", "-o", At("logits.npy"))).Error);
        await File.WriteAllTextAsync(At("ids"), ids, TestContext.Current.CancellationToken);
        Assert.Equal("", (await CommandLine.RunAsync("logits", "--ids", $"@{At("ids")}", "-o", At("again.npy"))).Error);
        Assert.Equal(await File.ReadAllBytesAsync(At("logits.npy"), TestContext.Current.CancellationToken), await File.ReadAllBytesAsync(At("again.npy"), TestContext.Current.CancellationToken));
        Assert.Equal("@someone", (await Pipe((await CommandLine.RunAsync("tokenize", "-p", "@someone", "--no-special")).Out, "detokenize")).Out.TrimEnd());
        string text = string.Concat(Enumerable.Range(0, 30).Select(i => $"{i}. The parser reads a token and hands it to the next stage. "));
        CommandLine.Result perplexity = await Pipe(text, "perplexity", "-f", "-", "-c", "64", "--max-tokens", "64", "--kv-cache", "f16", "--json");
        Assert.Equal("", perplexity.Error);
        Assert.Equal(1, JsonDocument.Parse(perplexity.Out).RootElement.GetArrayLength());
    }

    [Theory]
    [InlineData("16", 1)]
    [InlineData("-1", 0)]
    public async Task A_full_context_keeps_the_text_so_far(string count, int exitCode)
    {
        CommandLine.Result result = await CommandLine.RunAsync("run", "-p", Prompt, "--temp", "0", "-c", "8", "-n", count);
        Assert.Equal(exitCode, result.ExitCode);
        Assert.StartsWith(Prompt + " is a new", result.Out, StringComparison.Ordinal);
        Assert.Contains("the context of 8 tokens is full: 4 prompt tokens and 5 generated tokens; raise -c to generate more", result.Error, StringComparison.Ordinal);
        JsonElement json = JsonDocument.Parse((await CommandLine.RunAsync("run", "-p", Prompt, "--temp", "0", "-c", "8", "-n", count, "--json")).Out).RootElement;
        Assert.StartsWith(Prompt + " is a new", json.GetProperty("text").GetString(), StringComparison.Ordinal);
        Assert.Equal("context_full", json.GetProperty("stop_reason").GetString());
        Assert.Equal(5, json.GetProperty("tokens").GetArrayLength());
    }

    [Fact]
    public async Task A_full_budget_ends_a_text_as_a_full_context_does()
    {
        CommandLine.Result result = await CommandLine.RunAsync("run", "-p", Prompt, "--temp", "0", "-c", "1024", "-n", "-1", "--kv-memory", "600K", "--json");
        Assert.Equal(0, result.ExitCode);
        Assert.Contains("raise the budget (--kv-memory)", result.Error, StringComparison.Ordinal);
        JsonElement json = JsonDocument.Parse(result.Out).RootElement;
        Assert.StartsWith(Prompt + " is a new", json.GetProperty("text").GetString(), StringComparison.Ordinal);
        Assert.Equal("context_full", json.GetProperty("stop_reason").GetString());
        Assert.InRange(json.GetProperty("tokens").GetArrayLength(), 100, 1000);
    }

    [Fact]
    public async Task A_model_that_kivi2_does_not_fit_runs_with_a_type_that_does()
    {
        string model = At("heads-of-40.gguf");
        WriteNarrow(model, 40);
        CommandLine.Result run = await CommandLine.RunAsync("run", "-m", model, "-p", "x", "-n", "2", "--json");
        Assert.Equal(0, run.ExitCode);
        const string Said = "the KV cache is f16 instead of the default kivi2 (keys: kivi2 needs a head size that is a multiple of 16; this model has 40; types that fit for --kv-cache: f16, f32, bf16)";
        Assert.Contains(Said, run.Error, StringComparison.Ordinal);
        JsonElement cache = JsonDocument.Parse(run.Out).RootElement.GetProperty("kv_cache");
        Assert.Equal(("f16", Said), (cache.GetProperty("type_k").GetString(), cache.GetProperty("fallback").GetString()));

        CommandLine.Result asked = await CommandLine.RunAsync("run", "-m", model, "-p", "x", "--kv-cache", "q8_0");
        Assert.Equal(1, asked.ExitCode);
        Assert.Contains("types that fit for --kv-cache: f16", asked.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("kivi2", asked.Error, StringComparison.Ordinal);

        CommandLine.Result list = await CommandLine.RunAsync("batched-bench", "-m", model, "-npp", "8", "-ntg", "2", "-npl", "1", "--output-format", "jsonl");
        Assert.Contains("kivi2 is skipped", list.Error, StringComparison.Ordinal);
        Assert.Single(list.Out.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        CommandLine.Result one = await CommandLine.RunAsync("bench", "-m", model, "-p", "8", "-n", "0", "-r", "1", "-o", "csv");
        Assert.Contains(",f16,pp8,", one.Out, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Inspect_lists_every_type_with_its_reason()
    {
        string model = At("heads-of-48.gguf");
        WriteNarrow(model, 48);
        CommandLine.Result json = await CommandLine.RunAsync("inspect", model, "--json");
        JsonElement root = JsonDocument.Parse(json.Out).RootElement;
        Dictionary<string, JsonElement> rows = root.GetProperty("kv_cache").EnumerateArray().ToDictionary(row => row.GetProperty("kv_cache").GetString()!);
        Assert.Equal(Common.KvCacheType.Names.Order(), rows.Keys.Order());
        foreach ((string name, JsonElement row) in rows)
        {
            bool fits = name is not ("q8_0" or "q5_1" or "q5_0" or "q4_1" or "q4_0" or "iq4_nl");
            Assert.Equal(fits, row.TryGetProperty("bytes_per_token", out _));
            Assert.Equal(!fits, row.TryGetProperty("reason", out JsonElement reason) && reason.GetString()!.Contains("this model has 48", StringComparison.Ordinal));
        }

        Assert.False(root.TryGetProperty("no_estimate", out _));
        string text = (await CommandLine.RunAsync("inspect", model)).Out;
        string missing = Assert.Single(text.Split('\n'), line => line.StartsWith("not available: ", StringComparison.Ordinal));
        Assert.Equal("not available: q8_0, q4_0, q5_1, q5_0, q4_1, iq4_nl (keys: needs a head size that is a multiple of 32; this model has 48)", missing.TrimEnd());
        Assert.All(rows.Where(row => row.Value.TryGetProperty("bytes_per_token", out _)), row => Assert.Contains($" {row.Key} ", text, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Quantize_lists_fallbacks_and_refuses_a_type_that_does_not_fit()
    {
        string model = At("narrow.gguf");
        WriteNarrow(model, 96);
        CommandLine.Result text = await CommandLine.RunAsync("quantize", model, At("out.gguf"), "Q4_K_M");
        Assert.Equal(0, text.ExitCode);
        Assert.Contains("8 tensors have a wider type than Q4_K_M's", text.Out, StringComparison.Ordinal);
        Assert.Contains("  token_embd.weight: Q8_0 instead of Q6_K", text.Out, StringComparison.Ordinal);
        JsonElement json = JsonDocument.Parse((await CommandLine.RunAsync("quantize", model, At("out.gguf"), "Q4_K_M", "--json")).Out).RootElement;
        Assert.Equal(8, json.GetProperty("fallback").GetInt32());
        JsonElement first = json.GetProperty("fallbacks")[0];
        Assert.Equal(
            ("token_embd.weight", "Q6_K", "Q8_0"), (first.GetProperty("tensor").GetString(), first.GetProperty("wanted").GetString(), first.GetProperty("type").GetString()));
        CommandLine.Result asked = await CommandLine.RunAsync("quantize", model, At("none.gguf"), "Q8_0", "--output-type", "q6_k");
        Assert.Equal(2, asked.ExitCode);
        Assert.Contains("tensor 'token_embd.weight' has rows of 96 elements, not a multiple of the block size 256 of Q6_K; types that fit: F32", asked.Error, StringComparison.Ordinal);
        Assert.False(File.Exists(At("none.gguf")));
    }

    // One layer, one head, random weights and the demo model's tokenizer.
    private static void WriteNarrow(string path, int headSize)
    {
        using GgufFile source = GgufFile.Open(CommandLine.Model);
        int vocabulary = source.GetStrings("tokenizer.ggml.tokens")!.Length;
        var random = new Random(1);
        float[] Values(int count) => [.. Enumerable.Range(0, count).Select(_ => random.NextSingle() - 0.5f)];
        GgufWriter writer = GgufWriter.OneLayer(source, headSize, 128)
            .AddTensor("token_embd.weight", [headSize, vocabulary], Values(headSize * vocabulary))
            .AddTensor("output_norm.weight", [headSize], Values(headSize))
            .AddTensor("blk.0.attn_norm.weight", [headSize], Values(headSize))
            .AddTensor("blk.0.ffn_norm.weight", [headSize], Values(headSize));
        foreach (string name in (string[])["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"])
        {
            writer.AddTensor($"blk.0.{name}.weight", [headSize, headSize], Values(headSize * headSize));
        }

        writer.Write(path);
    }
}
