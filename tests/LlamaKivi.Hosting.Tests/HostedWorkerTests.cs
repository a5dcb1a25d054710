using System.Diagnostics;

namespace LlamaKivi.Hosting.Tests;

/// <summary>The sample under samples/HostedWorker.</summary>
public sealed class HostedWorkerTests
{
    [Fact]
    public async Task Files_that_appear_get_summaries()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("llama-kivi-");
        await File.WriteAllTextAsync(Path.Combine(folder.FullName, "first.txt"), "The collector frees memory that no object refers to.");
        var start = new ProcessStartInfo("dotnet")
        {
            ArgumentList =
            {
                Path.Combine(AppContext.BaseDirectory, "HostedWorker.dll"), $"--LlamaKivi:ModelPath={Engines.ModelPath}", "--LlamaKivi:ContextSize=2048", "--LlamaKivi:KvCache=kivi2",
                "--LlamaKivi:GpuLayerCount=0", $"--Folder={folder.FullName}", "--Count=2",
            },
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        try
        {
            Task<string> output = process.StandardOutput.ReadToEndAsync();
            Task<string> error = process.StandardError.ReadToEndAsync();
            await UntilAsync(folder, "first.summary.md", process);
            await File.WriteAllTextAsync(Path.Combine(folder.FullName, "second.txt"), "A linker joins object files.");
            await UntilAsync(folder, "second.summary.md", process);
            await process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));
            Assert.Equal(0, process.ExitCode);
            Assert.Equal("", await error);
            Assert.Contains("second.txt", await output, StringComparison.Ordinal);
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill();
            }

            folder.Delete(recursive: true);
        }
    }

    private static async Task UntilAsync(DirectoryInfo folder, string name, Process process)
    {
        string path = Path.Combine(folder.FullName, name);
        var time = Stopwatch.StartNew();
        while (!File.Exists(path) && !process.HasExited && time.Elapsed < TimeSpan.FromSeconds(60))
        {
            await Task.Delay(20);
        }

        Assert.True(File.Exists(path), $"{name} does not appear.");
    }
}
