namespace LlamaKivi.Evaluation.Tests;

/// <summary>The library renders nothing.</summary>
public sealed class DependencyTests
{
    [Fact]
    public void The_library_references_no_package_of_the_command_line()
    {
        string[] names = [.. typeof(AnswerMetrics).Assembly.GetReferencedAssemblies().Select(a => a.Name!)];
        Assert.Contains("LlamaKivi", names);
        Assert.DoesNotContain(names, name => name.StartsWith("Spectre", StringComparison.Ordinal) || name.StartsWith("ScottPlot", StringComparison.Ordinal)
            || name is "System.CommandLine" or "System.Console" or "llama-kivi");
    }
}
