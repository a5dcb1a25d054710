using System.Diagnostics;
using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace LlamaKivi.Server.Tests;

public sealed partial class SampleTests
{
    [Fact]
    public async Task MinimalApi_answers_and_stops_on_SIGTERM()
    {
        var start = new ProcessStartInfo("dotnet") { UseShellExecute = false, RedirectStandardOutput = true, WorkingDirectory = AppContext.BaseDirectory };
        foreach (string argument in (string[])[Path.Combine(AppContext.BaseDirectory, "MinimalApi.dll"), "--urls=http://127.0.0.1:0", $"--LlamaKivi:ModelPath={TestServer.ModelPath}", "--LlamaKivi:KvCache=kivi2", "--LlamaKivi:GpuLayerCount=0"])
        {
            start.ArgumentList.Add(argument);
        }

        using Process process = Process.Start(start)!;
        try
        {
            string address = "";
            while (address.Length == 0 && await process.StandardOutput.ReadLineAsync() is { } line)
            {
                address = Address().Match(line).Value;
            }

            Task<string> rest = process.StandardOutput.ReadToEndAsync();
            using var http = new HttpClient { BaseAddress = new Uri(address) };
            while ((await http.GetAsync("/health")).StatusCode != HttpStatusCode.OK)
            {
                await Task.Delay(50);
            }

            using HttpResponseMessage response = await http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"max_tokens":3}"""));
            Assert.Equal(3, JsonElement.Parse(await response.Content.ReadAsStringAsync()).GetProperty("usage").GetProperty("completion_tokens").GetInt32());
            Assert.Equal("kivi2", JsonElement.Parse(await http.GetStringAsync("/engine")).GetProperty("cache_type_k").GetString());
            using Process kill = Process.Start("kill", $"-TERM {process.Id}");
            await process.WaitForExitAsync(new CancellationTokenSource(TimeSpan.FromSeconds(30)).Token);
            await rest;
            Assert.Equal(0, process.ExitCode);
        }
        finally
        {
            if (!process.HasExited)
            {
                process.Kill();
            }
        }
    }

    [GeneratedRegex(@"http://127\.0\.0\.1:\d+", RegexOptions.None, 1000)]
    private static partial Regex Address();
}
