using System.Runtime.CompilerServices;

namespace LlamaKivi.Cli.Tests;

/// <summary>The command line uses only the public surface of the libraries.</summary>
public sealed class InternalsTests
{
    [Theory]
    [InlineData(typeof(Native.GgufFile))]
    [InlineData(typeof(LLamaWeights))]
    [InlineData(typeof(Evaluation.PerplexityEvaluator))]
    public void No_library_shows_its_internals_to_the_command_line(Type type)
    {
        string[] friends = [.. type.Assembly.GetCustomAttributes(typeof(InternalsVisibleToAttribute), false).Cast<InternalsVisibleToAttribute>().Select(a => a.AssemblyName)];
        Assert.NotEmpty(friends);
        Assert.DoesNotContain("llama-kivi", friends);
    }
}
