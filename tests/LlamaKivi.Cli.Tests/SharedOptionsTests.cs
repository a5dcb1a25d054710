using System.CommandLine;

namespace LlamaKivi.Cli.Tests;

/// <summary>Options of the commands that open a context.</summary>
public sealed class SharedOptionsTests
{
    private static readonly string[] WithoutContext = ["inspect", "quantize", "tokenize", "detokenize"];

    public static TheoryData<string> Commands => [.. Cli.Commands.CreateRoot().Subcommands.Select(command => command.Name).Except(WithoutContext)];

    [Theory]
    [MemberData(nameof(Commands))]
    public void A_command_that_opens_a_context_has_every_option_of_a_context(string name)
    {
        Command command = Cli.Commands.CreateRoot().Subcommands.Single(command => command.Name == name);
        string[] expected =
        [
            "--threads", "--gpu-layers", "--batch-invariant", "--kv-cache", "--kv-group", "--kv-residual", "--kv-residual-type", "--kv-sink", "--kv-refined", "--kv-undo", "--kv-memory",
            .. new CommonOptions().Context.Select(option => option.Name),
        ];
        Assert.Empty(expected.Except(command.Options.Select(option => option.Name)));
    }

    [Theory]
    [InlineData("LLAMA_ARG_KV_UNDO", "99", "LLAMA_ARG_KV_UNDO: --kv-undo is 99; it must be a whole number from 0 to 64")]
    [InlineData("LLAMA_ARG_THREADS", "0", "LLAMA_ARG_THREADS: -t is 0")]
    [InlineData("LLAMA_ARG_KV_GROUP", "48", "--kv-group is 48; it must be 16, 32, 64 or 128")]
    [InlineData("LLAMA_ARG_BATCH_INVARIANT", "maybe", "LLAMA_ARG_BATCH_INVARIANT: ")]
    [InlineData("LLAMA_ARG_KV_MEMORY", "4K", "--kv-memory is 4096 bytes; one sequence takes at least")]
    public async Task The_server_reads_the_options_from_the_environment(string variable, string value, string expected)
    {
        CommandLine.Result result = await CommandLine.RunAsync("llama-kivi", "", ["serve", "--port", "0"], (variable, value));
        Assert.Equal(2, result.ExitCode);
        Assert.Contains(expected, result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_command_line_comes_before_the_environment()
    {
        CommandLine.Result result = await CommandLine.RunAsync("llama-kivi", "", ["serve", "--port", "0", "--kv-undo", "8", "-ngl", "-1", "--kv-memory", "4K"], ("LLAMA_ARG_KV_UNDO", "99"), ("LLAMA_ARG_BATCH_INVARIANT", "1"));
        Assert.Equal(2, result.ExitCode);
        Assert.Contains("--kv-memory is 4096 bytes", result.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("LLAMA_ARG", result.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Inspect_counts_the_tokens_that_fit_in_a_budget()
    {
        string model = CommandLine.Model;
        string text = (await CommandLine.RunAsync("inspect", model, "--kv-memory", "1M")).Out;
        Assert.Contains("tokens in 1.00 MiB", text, StringComparison.Ordinal);
        Assert.Matches(@"f16 .* 128 *\n", text);   // a page of 128 tokens takes 640 KiB
        Assert.Matches(@"f32 .* 0 *\n", text);     // a page takes more than the budget
        Assert.Matches(@"kivi2 .* [67]\d\d *\n", text);
        string json = (await CommandLine.RunAsync("inspect", model, "--kv-memory", "1M", "--json")).Out;
        using var document = System.Text.Json.JsonDocument.Parse(json);
        Assert.Equal(1 << 20, document.RootElement.GetProperty("kv_memory_bytes").GetInt64());
        Assert.All(document.RootElement.GetProperty("kv_cache").EnumerateArray(), row => Assert.True(row.GetProperty("tokens_that_fit").GetInt32() >= 0));
    }
}
