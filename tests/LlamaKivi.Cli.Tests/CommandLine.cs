using System.Diagnostics;
using System.Text;

namespace LlamaKivi.Cli.Tests;

/// <summary>Runs the program in a separate process: LK_PROGRAM, one compiled ahead of time, or else that of the tests' folder.</summary>
internal static class CommandLine
{
    public sealed record Result(int ExitCode, string Out, string Error);

    public static string Model { get; } = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");

    public static Task<Result> RunAsync(params string[] arguments) => RunAsync("llama-kivi", "", arguments);

    /// <summary>Starts a program in the tests' folder.</summary>
    public static Process Start(string program, params string[] arguments) => Start(program, [], arguments);

    private static Process Start(string program, (string Name, string Value)[] environment, string[] arguments)
    {
        string? native = program == "llama-kivi" ? Environment.GetEnvironmentVariable("LK_PROGRAM") : null;
        var utf8 = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        var start = new ProcessStartInfo(native ?? "dotnet") { StandardInputEncoding = utf8, StandardOutputEncoding = utf8, StandardErrorEncoding = utf8, UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true, RedirectStandardInput = true, WorkingDirectory = AppContext.BaseDirectory, CreateNoWindow = true };
        if (native is null)
        {
            start.ArgumentList.Add(Path.Combine(AppContext.BaseDirectory, program + ".dll"));
        }

        foreach (string argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }

        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        return Process.Start(start)!;
    }

    /// <summary>Runs a program in the tests' folder.</summary>
    public static async Task<Result> RunAsync(
        string program, string input, string[] arguments, params (string Name, string Value)[] environment)
    {
        using Process process = Start(program, environment, arguments);
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        await process.StandardInput.WriteAsync(input);
        process.StandardInput.Close();
        using var timeout = new CancellationTokenSource(TimeSpan.FromMinutes(3));
        await process.WaitForExitAsync(timeout.Token);
        return new Result(process.ExitCode, await output, await error);
    }
}
