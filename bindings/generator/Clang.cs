using System.ComponentModel;
using System.Diagnostics;
using System.Text.Json;

namespace LlamaKivi.BindingsGenerator;

/// <summary>Runs clang and returns its syntax tree.</summary>
internal sealed class Clang
{
    private static readonly string[] Candidates =
        ["clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19"];

    private readonly string _command;

    private Clang(string command) => _command = command;

    /// <summary>Finds clang on the path.</summary>
    public static Clang Find()
    {
        foreach (string candidate in Candidates)
        {
            try
            {
                if (Run(candidate, ["--version"]).ExitCode == 0)
                {
                    return new Clang(candidate);
                }
            }
            catch (Win32Exception)
            {
                // Not on the path: try the next name.
            }
        }

        throw new GeneratorException(
            $"clang was not found (tried {string.Join(", ", Candidates)}); the generator needs it to parse the C header. " +
            "Debian or Ubuntu: apt-get install clang. macOS: xcode-select --install. Windows: winget install LLVM.LLVM.");
    }

    /// <summary>Parses a C file and returns the declarations at file scope.</summary>
    public JsonElement[] Parse(string path)
    {
        // Freestanding: uses clang's own stdint.h, so no C library headers need to be installed.
        var (exitCode, output, errors) = Run(
            _command, ["-ffreestanding", "-x", "c", "-std=c11", "-Xclang", "-ast-dump=json", "-fsyntax-only", path]);
        if (exitCode != 0)
        {
            throw new GeneratorException($"{_command} could not parse {path}:{Environment.NewLine}{errors}");
        }

        using var document = JsonDocument.Parse(output, new JsonDocumentOptions { MaxDepth = 512 });
        return [.. document.RootElement.GetProperty("inner").EnumerateArray().Select(node => node.Clone())];
    }

    private static (int ExitCode, string Output, string Errors) Run(string command, string[] arguments)
    {
        var start = new ProcessStartInfo(command, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, errors.Result);
    }
}
