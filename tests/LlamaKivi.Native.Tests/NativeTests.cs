using System.ComponentModel;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Xunit;

namespace LlamaKivi.Native.Tests;

/// <summary>Runs the engine's own tests, which the build made beside the library.</summary>
public class NativeTests(ITestOutputHelper output)
{
    [Fact]
    public void Native_tests_pass()
    {
        string? root = TestFiles.RepositoryRoot;
        Assert.SkipWhen(root is null, "The tests do not run inside the repository, so there is no native build.");
        string build = Path.Combine(root, "artifacts", "native", RuntimeInformation.RuntimeIdentifier);
        string program = Path.Combine(build, "bin", OperatingSystem.IsWindows() ? "llama-kivi-tests.exe" : "llama-kivi-tests");
        Assert.SkipUnless(
            File.Exists(program),
            $"{program} was not built: install GoogleTest (Debian: apt-get install libgtest-dev), delete {build} and build again.");

        var start = new ProcessStartInfo("ctest", ["--test-dir", build, "-C", "Release", "--output-on-failure", "--parallel", $"{Environment.ProcessorCount}"])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        try
        {
            using Process process = Process.Start(start)!;
            process.ErrorDataReceived += (_, line) => output.WriteLine(line.Data ?? "");
            process.BeginErrorReadLine();
            string log = process.StandardOutput.ReadToEnd();
            process.WaitForExit();
            output.WriteLine(log);
            Assert.True(process.ExitCode == 0, log);
            Assert.DoesNotContain("No tests were found", log, StringComparison.Ordinal);
        }
        catch (Win32Exception e)
        {
            Assert.Fail($"ctest could not be started ({e.Message}); it comes with CMake.");
        }
    }
}
