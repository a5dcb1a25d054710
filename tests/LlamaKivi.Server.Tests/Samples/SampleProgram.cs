using System.Diagnostics;
using System.Net;
using System.Text.RegularExpressions;

namespace LlamaKivi.Server.Tests;

/// <summary>A sample of the server as a process of its own, on a free port.</summary>
internal sealed partial class SampleProgram : IDisposable
{
    private readonly Task<string> _rest;  // read, so that the pipe does not fill

    private SampleProgram(Process process, string address)
    {
        Process = process;
        _rest = process.StandardOutput.ReadToEndAsync();
        Http = new HttpClient { BaseAddress = new Uri(address) };
    }

    public Process Process { get; }

    public HttpClient Http { get; }

    /// <summary>Starts a program on the test model and waits until it is healthy.</summary>
    /// <param name="assembly">Name of its assembly.</param>
    /// <param name="settings">Further arguments.</param>
    /// <param name="variables">Environment variables.</param>
    public static async Task<SampleProgram> StartAsync(string assembly, string[] settings, params (string Name, string Value)[] variables)
    {
        var start = new ProcessStartInfo("dotnet") { UseShellExecute = false, RedirectStandardOutput = true, WorkingDirectory = AppContext.BaseDirectory };
        foreach (string argument in (string[])[Path.Combine(AppContext.BaseDirectory, assembly), "--urls=http://127.0.0.1:0", $"--LlamaKivi:ModelPath={TestServer.ModelPath}", "--LlamaKivi:GpuLayerCount=0", .. settings])
        {
            start.ArgumentList.Add(argument);
        }

        foreach ((string name, string value) in variables)
        {
            start.Environment[name] = value;
        }

        Process process = Process.Start(start)!;
        try
        {
            string address = "";
            while (address.Length == 0 && await process.StandardOutput.ReadLineAsync() is { } line)
            {
                address = Address().Match(line).Value;
            }

            var program = new SampleProgram(process, address);
            while ((await program.Http.GetAsync("/health")).StatusCode != HttpStatusCode.OK)
            {
                await Task.Delay(50);
            }

            return program;
        }
        catch
        {
            process.Kill();
            process.Dispose();
            throw;
        }
    }

    /// <summary>Waits until the program has ended and its output is read.</summary>
    public async Task EndAsync()
    {
        await Process.WaitForExitAsync(new CancellationTokenSource(TimeSpan.FromSeconds(30)).Token);
        await _rest;
    }

    public void Dispose()
    {
        Http.Dispose();
        if (!Process.HasExited)
        {
            Process.Kill();
        }

        Process.Dispose();
    }

    [GeneratedRegex(@"http://127\.0\.0\.1:\d+", RegexOptions.None, Timeout.Infinite)]
    private static partial Regex Address();
}
