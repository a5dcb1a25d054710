using System.Text.Json;
using LlamaKivi.TestHelpers;
using Xunit;

namespace LlamaKivi.Cli.Tests;

public sealed class CliTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-tests").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("f16", 16.0)]
    [InlineData("kivi2", 2.5625)]
    public async Task Run_continues_the_prompt(string type, double bits)
    {
        CommandLine.Result result = await CommandLine.RunAsync("run", "-p", "The garbage collector", "--temp", "0", "-n", "200", "--kv-cache", type, "--json");
        Assert.Equal("", result.Error);
        Assert.Equal(0, result.ExitCode);
        JsonElement root = JsonDocument.Parse(result.Out).RootElement;
        Assert.StartsWith("The garbage collector is a new component of the Rust compiler", root.GetProperty("text").GetString(), StringComparison.Ordinal);
        Assert.Equal(200, root.GetProperty("tokens").GetArrayLength());
        Assert.Equal("max_tokens", root.GetProperty("stop_reason").GetString());
        JsonElement cache = root.GetProperty("kv_cache");
        Assert.Equal(bits, cache.GetProperty("bits_per_element").GetDouble());
        Assert.Equal(203, cache.GetProperty("tokens").GetInt64());
        Assert.Equal(type != "f16", cache.GetProperty("quantized_bytes").GetInt64() > 0);
    }

    [Fact]
    public async Task Run_writes_text_to_stdout_and_a_summary_to_stderr()
    {
        CommandLine.Result result = await CommandLine.RunAsync("run", "-p", "The garbage collector", "-n", "8", "-s", "1");
        Assert.Equal(0, result.ExitCode);
        Assert.StartsWith("The garbage collector", result.Out, StringComparison.Ordinal);
        Assert.Contains("prefill 4 tokens", result.Error, StringComparison.Ordinal);
        Assert.Contains("kivi2/kivi2", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_same_seed_gives_the_same_text()
    {
        string[] arguments = ["run", "-p", "A thread", "-n", "24", "-s", "7", "-t", "1"];
        Assert.Equal((await CommandLine.RunAsync(arguments)).Out, (await CommandLine.RunAsync(arguments)).Out);
    }

    [Fact]
    public async Task The_cpu_is_batch_invariant_anyway()
    {
        string[] arguments = ["run", "-p", "A thread", "-n", "8", "--temp", "0", "-t", "1", "-ngl", "0"];
        CommandLine.Result invariant = await CommandLine.RunAsync([.. arguments, "--batch-invariant"]);
        Assert.Equal(0, invariant.ExitCode);
        Assert.Equal((await CommandLine.RunAsync(arguments)).Out, invariant.Out);
    }

    [Fact]
    public async Task Inspect_describes_the_file()
    {
        string model = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        CommandLine.Result text = await CommandLine.RunAsync("inspect", model);
        Assert.Contains("general.architecture", text.Out, StringComparison.Ordinal);
        Assert.Contains("blk.9.ffn_up.weight", text.Out, StringComparison.Ordinal);
        CommandLine.Result json = await CommandLine.RunAsync("inspect", model, "--json");
        JsonElement kivi2 = JsonDocument.Parse(json.Out).RootElement.GetProperty("kv_cache").EnumerateArray()
            .Single(row => row.GetProperty("kv_cache").GetString() == "kivi2");
        Assert.Equal(820, kivi2.GetProperty("bytes_per_token").GetDouble());  // 10 layers, 2 heads, 64 channels, 2 sides, 2.5625 bits
    }

    [Fact]
    public async Task Perplexity_reads_the_cache_back()
    {
        string file = Path.Combine(_folder, "text.txt");
        string paragraph = "A garbage collector finds the objects that a program can no longer reach and takes their memory back. ";
        await File.WriteAllTextAsync(file, string.Concat(Enumerable.Range(0, 40).Select(i => $"{i}. {paragraph}")));
        CommandLine.Result result = await CommandLine.RunAsync("perplexity", "-f", file, "-c", "512", "--max-tokens", "512", "--kv-cache", "f16,kivi4,kivi2", "--json");
        Assert.Equal("", result.Error);
        JsonElement[] rows = [.. JsonDocument.Parse(result.Out).RootElement.EnumerateArray()];
        Assert.Equal(["f16", "kivi4", "kivi2"], rows.Select(row => row.GetProperty("kv_cache").GetString()));
        Assert.All(rows, row => Assert.Equal(256, row.GetProperty("tokens").GetInt64()));
        double f16 = rows[0].GetProperty("ppl").GetDouble();
        Assert.InRange(f16, 1.0, 100.0);
        Assert.InRange(rows[1].GetProperty("ppl").GetDouble() / f16, 0.95, 1.05);
        Assert.InRange(rows[2].GetProperty("ppl").GetDouble() / f16, 0.9, 1.15);
        Assert.NotEqual(f16, rows[2].GetProperty("ppl").GetDouble());  // some tokens were quantized
        Assert.Equal(0, rows[0].GetProperty("kl_mean").GetDouble());
        Assert.Equal(1, rows[0].GetProperty("same_top").GetDouble());
        double[] divergences = [.. rows[1..].Select(row => row.GetProperty("kl_mean").GetDouble())];
        Assert.InRange(divergences[0], 1e-5, 0.05);
        Assert.InRange(divergences[1], divergences[0], 0.2);
        Assert.All(rows[1..], row => Assert.InRange(row.GetProperty("kl_p99").GetDouble(), row.GetProperty("kl_mean").GetDouble(), 5));
        Assert.All(rows[1..], row => Assert.InRange(row.GetProperty("kl_p999").GetDouble(), row.GetProperty("kl_p99").GetDouble(), row.GetProperty("kl_max").GetDouble()));
        Assert.All(rows, row => Assert.Equal("text.txt", row.GetProperty("corpus").GetString()));
        Assert.All(rows[1..], row => Assert.InRange(row.GetProperty("same_top").GetDouble(), 0.7, 1));
    }

    [Fact]
    public async Task Perplexity_measures_and_plots_variants_of_a_type()
    {
        string file = Path.Combine(_folder, "text.txt");
        await File.WriteAllTextAsync(file, string.Concat(Enumerable.Range(0, 40).Select(i => $"{i}. A garbage collector finds the objects that a program can no longer reach. ")));
        string plot = Path.Combine(_folder, "kl.svg");
        string[] arguments = ["perplexity", "-f", file, "-c", "256", "--max-tokens", "256", "--kv-cache", "f16,kivi2,kivi2+residual=32+group=16,kivi2+refined=4+residual-type=f16", "--json", "--plot"];
        CommandLine.Result result = await CommandLine.RunAsync([.. arguments, plot]);
        Assert.Equal($"plot: {plot}{Environment.NewLine}", result.Error);
        JsonElement[] rows = [.. JsonDocument.Parse(result.Out).RootElement.EnumerateArray()];
        Assert.Equal(["f16", "kivi2", "kivi2+residual=32+group=16", "kivi2+refined=4+residual-type=f16"], rows.Select(row => row.GetProperty("kv_cache").GetString()));
        Assert.Equal([16, 2.5625, 2.9375, 2.6875], rows.Select(row => row.GetProperty("bits_per_element").GetDouble()));
        Assert.Equal(4, rows.Select(row => row.GetProperty("kl_mean").GetDouble()).Distinct().Count());
        string svg = await File.ReadAllTextAsync(plot, TestContext.Current.CancellationToken);
        Assert.Equal("svg", System.Xml.Linq.XDocument.Parse(svg).Root!.Name.LocalName);
    }

    [Fact]
    public async Task Generation_reports_agreement_and_perplexity()
    {
        string file = Path.Combine(_folder, "text.txt");
        await File.WriteAllTextAsync(file, string.Concat(Enumerable.Range(0, 60).Select(i => $"{i}. The parser reads a token and hands it to the next stage.\n")));
        CommandLine.Result result = await CommandLine.RunAsync(
            "generation", "-f", file, "--prompts", "3", "--prompt-tokens", "48", "-n", "20", "--at", "8,64", "-npl", "2", "--kv-cache", "f16,kivi2-paper+residual=32", "--json");
        Assert.Equal("", result.Error);
        JsonElement[] rows = [.. JsonDocument.Parse(result.Out).RootElement.EnumerateArray()];
        Assert.Equal(["f16", "kivi2-paper+residual=32"], rows.Select(row => row.GetProperty("kv_cache").GetString()));
        Assert.All(rows, row => Assert.Equal(
            ("text.txt", 3, 48, 20), (row.GetProperty("corpus").GetString(), row.GetProperty("prompts").GetInt32(), row.GetProperty("prompt_tokens").GetInt32(), row.GetProperty("generated_tokens").GetInt32())));
        Assert.All(rows, row => Assert.Equal([8, 20], row.GetProperty("checkpoints").EnumerateArray().Select(c => c.GetProperty("tokens").GetInt32())));
        Assert.All(rows, row => Assert.Equal(3, row.GetProperty("runs").GetArrayLength()));
        Assert.All(rows[0].GetProperty("checkpoints").EnumerateArray(), c => Assert.Equal(1, c.GetProperty("share").GetDouble()));
        Assert.All(rows[0].GetProperty("runs").EnumerateArray(), run => Assert.Equal(JsonValueKind.Null, run.GetProperty("first_disagreement").ValueKind));
        Assert.Equal((0, 16), (rows[0].GetProperty("vs_f16_percent").GetDouble(), rows[0].GetProperty("bits_per_element").GetDouble()));
        Assert.InRange(rows[1].GetProperty("ppl").GetDouble(), 1, 100);

        CommandLine.Result table = await CommandLine.RunAsync("generation", "-f", file, "--prompts", "2", "--prompt-tokens", "16", "-n", "4", "--kv-cache", "f16");
        Assert.Equal("", table.Error);
        Assert.Contains("text.txt: 2 prompts of 16 tokens, 4 tokens written after each", table.Out, StringComparison.Ordinal);
        Assert.Contains("100% (34 to 100)", table.Out, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Bench_prints_a_row_for_each_test()
    {
        CommandLine.Result result = await CommandLine.RunAsync("bench", "-p", "32", "-n", "8", "-d", "0,200", "-r", "1", "--kv-cache", "f16,kivi2", "--json");
        Assert.Equal(0, result.ExitCode);
        string?[] tests = [.. JsonDocument.Parse(result.Out).RootElement.EnumerateArray().Select(row => row.GetProperty("test").GetString())];
        Assert.Equal(["pp32", "tg8", "pp32 @ d200", "tg8 @ d200", "pp32", "tg8", "pp32 @ d200", "tg8 @ d200"], tests);
    }

    [Fact]
    public async Task Retrieval_finds_the_number()
    {
        CommandLine.Result result = await CommandLine.RunAsync("retrieval", "--depths", "256..512", "--cases", "6", "--kv-cache", "f16,kivi4", "--json");
        Assert.Equal("", result.Error);
        JsonElement[] rows = [.. JsonDocument.Parse(result.Out).RootElement.EnumerateArray()];
        Assert.Equal([256, 512, 256, 512], rows.Select(row => row.GetProperty("depth").GetInt32()));
        Assert.All(rows, row => Assert.Equal(6, row.GetProperty("cases").GetInt32()));
        Assert.All(rows, row => Assert.InRange(row.GetProperty("accuracy").GetDouble(), row.GetProperty("accuracy_low").GetDouble(), row.GetProperty("accuracy_high").GetDouble()));
        Assert.All(rows, row => Assert.True(row.GetProperty("accuracy_low").GetDouble() < row.GetProperty("accuracy_high").GetDouble()));
        Assert.InRange(rows.Average(row => row.GetProperty("accuracy").GetDouble()), 0.5, 1);  // a guess is right once in 990,000
    }

    [Fact]
    public async Task Batched_bench_prints_a_line_for_each_case()
    {
        CommandLine.Result result = await CommandLine.RunAsync("batched-bench", "-npp", "16,32", "-ntg", "4", "-npl", "1,3", "--kv-cache", "kivi2", "--output-format", "jsonl");
        Assert.Equal("", result.Error);
        JsonElement[] rows = [.. result.Out.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => JsonDocument.Parse(line).RootElement)];
        Assert.Equal([20, 36, 60, 108], rows.Select(row => row.GetProperty("n_kv").GetInt32()));
        Assert.All(rows, row => Assert.Equal(
            row.GetProperty("pl").GetInt32() * 4 / row.GetProperty("t_tg").GetDouble(), row.GetProperty("speed_tg").GetDouble(), row.GetProperty("speed_tg").GetDouble() / 100));
    }

    [Fact]
    public async Task Compare_makes_a_table_and_a_plot()
    {
        string file = Path.Combine(_folder, "text.txt");
        await File.WriteAllTextAsync(file, string.Concat(Enumerable.Range(0, 60).Select(i => $"{i}. The parser reads a token and hands it to the next stage. ")));
        CommandLine.Result result = await CommandLine.RunAsync(
            "compare", "-f", file, "-c", "256", "--max-tokens", "512", "-d", "256", "--cases", "2", "--kv-cache", "kivi2", "-o", _folder, "--json");
        Assert.Equal(0, result.ExitCode);
        JsonElement[] rows = [.. JsonDocument.Parse(result.Out).RootElement.EnumerateArray()];
        Assert.Equal(["f16", "kivi2"], rows.Select(row => row.GetProperty("kv_cache").GetString()));
        Assert.True(rows[1].GetProperty("cache_mib").GetDouble() < rows[0].GetProperty("cache_mib").GetDouble());
        byte[] plot = await File.ReadAllBytesAsync(Path.Combine(_folder, "compare.png"), TestContext.Current.CancellationToken);
        Assert.Equal("PNG", System.Text.Encoding.ASCII.GetString(plot, 1, 3));
        Assert.InRange(plot.Length, 5_000, 1_000_000);
    }

    [Fact]
    public async Task Bench_prints_csv()
    {
        CommandLine.Result result = await CommandLine.RunAsync("bench", "-p", "8", "-n", "0", "-r", "1", "-o", "csv");
        string[] lines = result.Out.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(2, lines.Length);
        Assert.EndsWith("kv_cache,test,tokens_per_second,stddev,cache_mib", lines[0], StringComparison.Ordinal);
        Assert.Contains(",kivi2,pp8,", lines[1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_greedy_run_heeds_the_repeat_penalty()
    {
        string[] arguments = ["run", "-p", "The garbage collector", "--temp", "0", "-n", "60"];
        CommandLine.Result plain = await CommandLine.RunAsync(arguments);
        CommandLine.Result penalized = await CommandLine.RunAsync([.. arguments, "--repeat-penalty", "1.5"]);
        Assert.NotEqual(plain.Out, penalized.Out);
    }

    [Theory]
    [InlineData("128")]
    [InlineData("1")]
    public async Task Logits_are_those_of_the_model(string chunk)
    {
        string file = Path.Combine(_folder, "logits.npy");
        string ids = (await CommandLine.RunAsync("tokenize", "-p", "The garbage collector")).Out.Trim().Replace(' ', ',');
        CommandLine.Result result = await CommandLine.RunAsync("logits", "--ids", ids, "-o", file, "--chunk", chunk, "--json");
        Assert.Equal("", result.Error);
        JsonElement shape = JsonDocument.Parse(result.Out).RootElement;
        int vocabulary = shape.GetProperty("vocabulary").GetInt32();
        byte[] bytes = await File.ReadAllBytesAsync(file, TestContext.Current.CancellationToken);
        Assert.Equal("\u0093NUMPY\u0001\0", System.Text.Encoding.Latin1.GetString(bytes, 0, 8));
        int header = 10 + BitConverter.ToUInt16(bytes, 8);
        Assert.Equal(0, header % 64);
        Assert.Contains($"'shape': (4, {vocabulary})", System.Text.Encoding.ASCII.GetString(bytes, 10, header - 10), StringComparison.Ordinal);
        Assert.Equal(header + (4 * vocabulary * sizeof(float)), bytes.Length);
        float[] last = new float[vocabulary];
        Buffer.BlockCopy(bytes, header + (3 * vocabulary * sizeof(float)), last, 0, vocabulary * sizeof(float));
        string next = (await CommandLine.RunAsync("detokenize", Array.IndexOf(last, last.Max()).ToString(System.Globalization.CultureInfo.InvariantCulture))).Out;
        Assert.Equal(" is", next.TrimEnd('\n'));
        Assert.Single(Directory.GetFiles(_folder));
    }

    [Fact]
    public async Task Quantize_writes_a_model_that_runs()
    {
        string model = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        string file = Path.Combine(_folder, "q5.gguf");
        CommandLine.Result result = await CommandLine.RunAsync("quantize", model, file, "Q5_K_M", "--json");
        Assert.Contains("already quantized", result.Error, StringComparison.Ordinal);
        JsonElement root = JsonDocument.Parse(result.Out).RootElement;
        Assert.True(root.GetProperty("converted").GetInt32() > 40);
        Assert.True(root.GetProperty("bytes_after").GetInt64() > root.GetProperty("bytes_before").GetInt64());
        CommandLine.Result run = await CommandLine.RunAsync("run", "-m", file, "-p", "The garbage collector", "--temp", "0", "-n", "4");
        Assert.StartsWith("The garbage collector is", run.Out, StringComparison.Ordinal);
        Assert.Single(Directory.GetFiles(_folder));
    }

    [Fact]
    public async Task Bytes_that_are_no_text_are_tokens_of_their_own()
    {
        string file = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(file, [(byte)'a', 0xFF, (byte)'b', 0xE2, 0x82], TestContext.Current.CancellationToken);
            CommandLine.Result ids = await CommandLine.RunAsync("tokenize", "-f", file, "--no-special");
            Assert.Equal(5, ids.Out.Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries).Length);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public async Task Tokens_go_there_and_back()
    {
        const string Text = "int main() { return 42; } // naïve 日本語";
        CommandLine.Result ids = await CommandLine.RunAsync("tokenize", "-p", Text, "--no-special");
        CommandLine.Result back = await CommandLine.RunAsync(["detokenize", .. ids.Out.Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries)]);
        Assert.Equal(Text, back.Out.TrimEnd('\n', '\r'));
    }

    [Theory]
    [InlineData(2, "Unrecognized", "run", "-p", "x", "--bogus")]
    [InlineData(2, "nothing to continue: standard input is empty", "run")]
    [InlineData(2, "-p and -f are both given", "run", "-p", "x", "-f", "y")]
    [InlineData(2, "--kv-cache: 'kivi9' is not a KV cache type; use one of: f16, kivi4, kivi2", "run", "-p", "x", "--kv-cache", "kivi9")]
    [InlineData(2, "--cache-type-k: 'kivi9' is not a KV cache type; use one of: f16", "run", "-p", "x", "-ctk", "kivi9")]
    [InlineData(2, "--cache-type-v: 'kivi9' is not a KV cache type; use one of: f16", "serve", "-ctv", "kivi9")]
    [InlineData(2, "--kv-cache: 'kivi9' is not a KV cache type; use one of: f16", "logits", "--ids", "1", "-o", "x.npy", "--kv-cache", "kivi9")]
    [InlineData(2, "--kv-refined is 4, which only keys of kivi2 and kivi3 use; the keys are q4_0. Leave it out, or choose kivi2", "run", "-p", "x", "--kv-cache", "q4_0", "--kv-refined", "4")]
    [InlineData(2, "--kv-residual-type is q8_0, but kivi2-paper always has f16", "chat", "--kv-cache", "kivi2-paper", "--kv-residual-type", "q8_0")]
    [InlineData(2, "--kv-group is 64, which only KIVI types use; the cache is f16", "serve", "-ctk", "f16", "--kv-group", "64")]
    [InlineData(2, "--kv-group is 64, which only KIVI types use; the cache is f16", "retrieval", "--kv-cache", "f16,q8_0", "--kv-group", "64")]
    [InlineData(2, "--kv-cache: 'f16+sink=4': --kv-sink is 4, which only quantized types use", "retrieval", "--kv-cache", "kivi2,f16+sink=4")]
    [InlineData(2, "too few", "retrieval", "--depths", "20", "--kv-cache", "f16,kivi2,q4_0+residual=64", "--kv-group", "32", "--kv-residual-type", "q8_0")]
    [InlineData(2, "--kv-group is 48; it must be 16, 32, 64 or 128", "run", "-p", "x", "--kv-group", "48")]
    [InlineData(2, "multiple of the group", "run", "-p", "x", "--kv-cache", "kivi2-paper", "--kv-residual", "100")]
    [InlineData(2, "--kv-refined is 9", "run", "-p", "x", "--kv-refined", "9")]
    [InlineData(2, "--kv-undo is 65", "run", "-p", "x", "--kv-undo", "65")]
    [InlineData(2, "--kv-memory is 64X; it must be a whole number of bytes", "run", "-p", "x", "--kv-memory", "64X")]
    [InlineData(2, "--kv-memory is 9999999999G", "run", "-p", "x", "--kv-memory", "9999999999G")]
    [InlineData(2, "--kv-memory is 4096 bytes; one sequence takes at least", "run", "-p", "x", "--kv-memory", "4K")]
    [InlineData(2, "--kv-memory is 4096 bytes; one sequence takes at least", "serve", "--port", "0", "--kv-memory", "4K")]
    [InlineData(2, "--kv-residual-type is 'foo'; it must be f16 or q8_0", "run", "-p", "x", "--kv-residual-type", "foo")]
    [InlineData(2, "'kivi2+residual=0': --kv-residual is 0; kivi2 needs at least 1", "retrieval", "--kv-cache", "kivi2+residual=0")]
    [InlineData(2, "--kv-residual-type is q4_0; it must be f16 or q8_0", "run", "-p", "x", "--kv-residual-type", "q4_0")]
    [InlineData(2, "--kv-residual is 0; kivi2 needs at least 1", "run", "-p", "x", "--kv-residual", "0")]
    [InlineData(2, "0 to the group (64)", "run", "-p", "x", "--kv-sink", "65")]
    [InlineData(2, "--temp is -1", "run", "-p", "x", "--temp", "-1")]
    [InlineData(2, "--top-p is 2; it must be a number from 0 to 1", "run", "-p", "x", "--top-p", "2")]
    [InlineData(2, "xml", "bench", "-o", "xml")]
    [InlineData(2, "-npl: '0' is not a number", "batched-bench", "-npl", "0")]
    [InlineData(2, "too few", "retrieval", "--depths", "20")]
    [InlineData(2, "'ring=64' in 'kivi2+ring=64' is no setting; the settings are group=N, residual=N, residual-type=TYPE, sink=N and refined=N", "retrieval", "--kv-cache", "kivi2+ring=64")]
    [InlineData(2, "'residual=x' in 'kivi2+residual=x' has no whole number from 0 as its value", "retrieval", "--kv-cache", "kivi2+residual=x")]
    [InlineData(2, "--kv-residual is 33; kivi2-paper needs a multiple of the group (32)", "retrieval", "--kv-cache", "kivi2-paper+residual=33")]
    [InlineData(2, "--kv-refined is 9", "retrieval", "--kv-cache", "kivi2+refined=9")]
    [InlineData(2, "--kv-residual-type is q4_0; it must be f16 or q8_0", "retrieval", "--kv-cache", "kivi2+residual-type=q4_0")]
    [InlineData(2, "--kv-cache: 'kivi9' is not a KV cache type", "retrieval", "--kv-cache", "kivi9+residual=64")]
    [InlineData(2, "--plot is 'kl.gif'; name a .png or .svg file", "perplexity", "-f", "nowhere.txt", "--plot", "kl.gif")]
    [InlineData(2, "prompt 1 of 64 starts at character 0", "generation", "-f", "/dev/null")]
    [InlineData(2, "--at: '0' is not a number", "generation", "-f", "nowhere.txt", "--at", "0")]
    [InlineData(2, "is empty", "retrieval", "--depths", "512..256")]
    [InlineData(2, "-c is 0", "run", "-p", "x", "-c", "0")]
    [InlineData(1, "cannot open", "run", "-p", "x", "-m", "nowhere.gguf")]
    [InlineData(1, "The prompt has 11 tokens; the context holds 4. Shorten the prompt or raise -c.", "run", "-p", "one two three four five six seven eight", "-c", "4")]
    [InlineData(1, "cannot open", "inspect", "nowhere.gguf")]
    [InlineData(1, "Could not find", "perplexity", "-f", "nowhere.txt")]
    [InlineData(2, "'x' is not a token id", "logits", "--ids", "1,x", "-o", "unused.npy")]
    [InlineData(2, "token 1 is 99999999; this model's ids are 0 to 16383", "logits", "--ids", "1,99999999", "-o", "unused.npy")]
    [InlineData(1, "is a device", "logits", "--ids", "1", "-o", "/dev/null")]
    [InlineData(2, "--ids is empty", "logits", "--ids", ",", "-o", "unused.npy")]
    [InlineData(1, "Could not find", "logits", "--ids", "1", "-o", "/nowhere/at/all.npy")]
    [InlineData(2, "is not a token id", "detokenize", "99999999")]
    [InlineData(1, "cannot open", "quantize", "nowhere.gguf", "unused.gguf")]
    [InlineData(2, "type 'Q7' is not known; use one of F32, F16", "quantize", "models/kivi-demo-llama-37m-q4_k_m.gguf", "unused.gguf", "Q7")]
    public async Task Errors_are_one_line_with_an_exit_code(int exitCode, string expected, params string[] arguments)
    {
        CommandLine.Result result = await CommandLine.RunAsync(arguments);
        Assert.Equal(exitCode, result.ExitCode);
        Assert.Contains(expected, result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_file_that_is_not_a_model_is_refused_by_name()
    {
        string file = Path.Combine(_folder, "notes.gguf");
        await File.WriteAllTextAsync(file, "These are notes, not a model.");
        CommandLine.Result result = await CommandLine.RunAsync("run", "-p", "x", "-m", file);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("notes.gguf", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_a_usable_GPU_layers_on_it_are_an_error_that_says_why()
    {
        CommandLine.Result doctor = await CommandLine.RunAsync("doctor", "--json");
        Assert.Equal(0, doctor.ExitCode);
        JsonElement found = JsonDocument.Parse(doctor.Out).RootElement;
        Assert.NotEqual(0, found.GetProperty("libraries").GetArrayLength());
        Assert.SkipWhen(found.GetProperty("gpu").ValueKind == JsonValueKind.Object, "There is a usable GPU.");
        string reason = found.GetProperty("gpu_reason").GetString()!;
        Gpu.AssertNone(reason);
        Assert.Contains("cannot be used", reason, StringComparison.Ordinal);
        CommandLine.Result run = await CommandLine.RunAsync("run", "-p", "A", "-ngl", "-1");
        Assert.Equal(1, run.ExitCode);
        Assert.Contains(reason, run.Error, StringComparison.Ordinal);
        CommandLine.Result part = await CommandLine.RunAsync("run", "-p", "A", "-ngl", "3");
        Assert.Equal(1, part.ExitCode);
        Assert.Contains(reason, part.Error, StringComparison.Ordinal);
    }

    // The limit of the managed heap, 128 MiB in hexadecimal, counts as the memory of the machine, which uses more.
    [Fact]
    public async Task A_model_that_fits_nowhere_is_diagnosed()
    {
        (string, string) noMemory = ("DOTNET_GCHeapHardLimit", "8000000");
        CommandLine.Result text = await CommandLine.RunAsync("llama-kivi", "", ["doctor", "-m", CommandLine.Model, "-ngl", "0"], noMemory);
        Assert.Equal(1, text.ExitCode);
        Assert.Contains("CPU      ", text.Out, StringComparison.Ordinal);
        Assert.Matches("fit      none: .* are needed and 0 MiB are free", text.Out);
        CommandLine.Result json = await CommandLine.RunAsync("llama-kivi", "", ["doctor", "-m", CommandLine.Model, "-ngl", "0", "--json"], noMemory);
        JsonElement found = JsonDocument.Parse(json.Out).RootElement;
        Assert.Equal(JsonValueKind.Null, found.GetProperty("fit").ValueKind);
        Assert.Contains("are needed", found.GetProperty("fit_reason").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task AMissingNativeLibraryIsOneMessage()
    {
        string folder = Path.Combine(Path.GetTempPath(), "llama-kivi-no-library");
        CommandLine.Result result = await CommandLine.RunAsync("llama-kivi", "", ["doctor"], ("LLAMA_KIVI_NATIVE_DIR", folder));
        Assert.Equal(1, result.ExitCode);
        Assert.StartsWith("llama-kivi: The native library of LlamaKivi was not loaded.", result.Error);
        Assert.Contains(Path.Combine(folder, "libllama-kivi.so"), result.Error);
        Assert.Contains($"LLAMA_KIVI_NATIVE_DIR is set to {folder}", result.Error);
        Assert.DoesNotContain("   at ", result.Error);
        Assert.Equal("", result.Out);
    }
}
