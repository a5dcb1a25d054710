using System.Globalization;
using Xunit;

namespace LlamaKivi.Cli.Tests;

/// <summary>The programs under samples/ run and print the expected output.</summary>
public sealed class SampleTests
{
    [Fact]
    public async Task ConsoleChat_answers_every_line()
    {
        CommandLine.Result result = await CommandLine.RunAsync("ConsoleChat", "What is a compiler?\nAnd a linker?\n", [CommandLine.Model]);
        Assert.Equal("", result.Error);
        Assert.Equal(0, result.ExitCode);
        Assert.True(result.Out.Split("User: ").Length >= 4, result.Out);
        Assert.True(result.Out.Length > 60, result.Out);
    }

    [Fact]
    public async Task StructuredOutput_gives_the_fields_of_its_schema()
    {
        CommandLine.Result result = await CommandLine.RunAsync("StructuredOutput", "", [CommandLine.Model]);
        Assert.Equal("", result.Error);
        Assert.Equal(0, result.ExitCode);
        string[] lines = result.Out.Trim().Split('\n');
        Assert.Equal(3, lines.Length);
        Assert.StartsWith("name:", lines[0], StringComparison.Ordinal);
        Assert.True(double.TryParse(lines[1]["year:".Length..], CultureInfo.InvariantCulture, out _), lines[1]);
        Assert.All(lines[2]["topics:".Length..].Split(','), topic => Assert.Contains(topic.Trim(), (string[])["history", "science", "art", "computing"]));
    }

    [Fact]
    public async Task ManyConversations_continues_the_prompt_in_several_ways()
    {
        CommandLine.Result result = await CommandLine.RunAsync("ManyConversations", "", [CommandLine.Model]);
        Assert.Equal("", result.Error);
        Assert.Equal(0, result.ExitCode);
        string[] lines = result.Out.Trim().Split('\n');
        Assert.Equal(4, lines.Length);
        Assert.All(lines, line => Assert.StartsWith("The garbage collector", line[3..], StringComparison.Ordinal));
        Assert.Equal(4, lines.Select(line => line[3..]).Distinct().Count());
    }
}
