namespace LlamaKivi.Evaluation.Tests;

/// <summary>The library has no dependency that renders output.</summary>
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

    [Fact]
    public void An_exception_of_the_library_is_a_RuntimeError() => Assert.DoesNotContain(
        typeof(AnswerMetrics).Assembly.GetExportedTypes(), type => type.IsAssignableTo(typeof(Exception)) && !type.IsAssignableTo(typeof(Exceptions.RuntimeError)));
}
