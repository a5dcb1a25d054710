using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

/// <summary>Many clients at once, some of which hang up or send nonsense. LK_LOAD_REQUESTS raises the number of requests.</summary>
[CollectionDefinition(nameof(LoadTests), DisableParallelization = true)]  // the memory of other tests would count
[Collection(nameof(LoadTests))]
public sealed class LoadTests
{
    private const int Clients = 64;

    private static int Requests => int.Parse(Environment.GetEnvironmentVariable("LK_LOAD_REQUESTS") ?? "96", CultureInfo.InvariantCulture);

    [Fact]
    public async Task Nothing_is_lost_and_nothing_is_stuck()
    {
        await using TestServer server = await TestServer.StartAsync(
            options => options.MaxBodyBytes = 64 << 10,
            engine =>
            {
                (engine.SeqMax, engine.ContextSize, engine.MaxWaiting) = (64, 16384, 1000);
                engine.PrefixCache.HostBytes = 8 << 20;  // evicted prefixes would fill 256 MiB, as they are allowed to
            });
        server.Http.Timeout = TimeSpan.FromMinutes(10);
        await Task.WhenAll(Enumerable.Range(0, 8).Select(i => StreamAsync(server, 40, 8, int.MaxValue, new Times())));
        long before = Process.GetCurrentProcess().WorkingSet64;
        var times = new Times();
        var outcomes = new ConcurrentBag<string>();
        var watch = Stopwatch.StartNew();
        int next = -1;
        long peak = before;
        await Task.WhenAll(Enumerable.Range(0, Clients).Select(async _ =>
        {
            for (int i = Interlocked.Increment(ref next); i < Requests; i = Interlocked.Increment(ref next))
            {
                outcomes.Add(await SendAsync(server, i, times));
                long now = Process.GetCurrentProcess().WorkingSet64;
                peak = Math.Max(peak, now);
            }
        }));
        double seconds = watch.Elapsed.TotalSeconds;
        await server.IdleAsync();
        long after = Process.GetCurrentProcess().WorkingSet64;
        long managed = GC.GetTotalMemory(forceFullCollection: true);
        ILookup<string, string> kinds = outcomes.ToLookup(outcome => outcome, StringComparer.Ordinal);
        TestContext.Current.SendDiagnosticMessage(string.Create(CultureInfo.InvariantCulture,
            $"{Requests} requests of {Clients} clients in {seconds:F1} s: {string.Join(", ", kinds.Select(kind => $"{kind.Key} {kind.Count()}"))}. Tokens: {times.Tokens}, {times.Tokens / seconds:F1}/s. "
            + $"First token (ms): {times.First()}. Between tokens (ms): {times.Between()}. Memory (MiB): {before >> 20} before, {peak >> 20} peak, {after >> 20} after; managed objects {managed >> 20} after a collection."));
        Assert.Equal(Requests, outcomes.Count);
        Assert.Equal(Enumerable.Range(0, Requests).Count(i => Kind(i) == "complete"), kinds["complete"].Count());
        Assert.Equal(Enumerable.Range(0, Requests).Count(i => Kind(i) == "hung up"), kinds["hung up"].Count());
        Assert.Equal(Enumerable.Range(0, Requests).Count(i => Kind(i) == "malformed"), kinds["malformed"].Count());
        Assert.Equal(Enumerable.Range(0, Requests).Count(i => Kind(i) == "oversized"), kinds["oversized"].Count());
        Assert.True(after - before < 256L << 20, $"Memory grew from {before >> 20} to {after >> 20} MiB.");
    }

    // Of 100 requests 5 hang up, 5 are malformed and 2 too large.
    private static string Kind(int request) => (request % 100) switch
    {
        7 or 27 or 47 or 67 or 87 => "hung up",
        11 or 31 or 51 or 71 or 91 => "malformed",
        19 or 59 => "oversized",
        _ => "complete",
    };

    private static async Task<string> SendAsync(TestServer server, int i, Times times)
    {
        string kind = Kind(i);
        switch (kind)
        {
            case "malformed":
                using (HttpResponseMessage response = await server.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":""")))
                {
                    return response.StatusCode == HttpStatusCode.BadRequest ? kind : $"{kind}: {response.StatusCode}";
                }

            case "oversized":
                using (HttpResponseMessage response = await server.Http.PostAsync("/v1/chat/completions", TestServer.Json($$"""{"messages":[{"role":"user","content":"{{new string('a', 70_000)}}"}]}""")))
                {
                    return response.StatusCode == HttpStatusCode.RequestEntityTooLarge ? kind : $"{kind}: {response.StatusCode}";
                }

            default:
                return await StreamAsync(server, 4 + (i * 37 % 60), 8 + (i * 13 % 24), kind == "hung up" ? 3 : int.MaxValue, times);
        }
    }

    private static async Task<string> StreamAsync(TestServer server, int words, int tokens, int hangUpAfter, Times times)
    {
        string prompt = string.Join(' ', Enumerable.Range(0, words).Select(i => (words * i % 7) switch { 0 => "cat", 1 => "story", 2 => "of", _ => "water" }));
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/chat/completions")
        {
            Content = TestServer.Json($$$"""{"messages":[{"role":"user","content":"{{{prompt}}}"}],"max_tokens":{{{tokens}}},"stream":true,"seed":{{{words}}},"logit_bias":{"2":-100}}"""),
        };
        var watch = Stopwatch.StartNew();
        using HttpResponseMessage response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        if (response.StatusCode != HttpStatusCode.OK)
        {
            return $"status {response.StatusCode}";
        }

        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync(), Encoding.UTF8);
        double last = 0;
        int pieces = 0;
        string? reason = null;
        while (await reader.ReadLineAsync() is { } line)
        {
            if (line == "data: [DONE]")
            {
                return reason is "length" or "stop" ? "complete" : $"reason {reason}";
            }

            if (!line.StartsWith("data: ", StringComparison.Ordinal))
            {
                continue;
            }

            JsonElement chunk = JsonElement.Parse(line["data: ".Length..]);
            if (chunk.TryGetProperty("error", out JsonElement error))
            {
                return error.GetProperty("message").GetString()!;
            }

            JsonElement choice = chunk.GetProperty("choices")[0];
            reason ??= choice.GetProperty("finish_reason").GetString();
            if (choice.GetProperty("delta").TryGetProperty("content", out JsonElement content) && content.GetString()!.Length > 0)
            {
                double now = watch.Elapsed.TotalMilliseconds;
                times.Add(pieces == 0, now - last);
                last = now;
                if (++pieces >= hangUpAfter)
                {
                    return "hung up";
                }
            }
        }

        return "lost";
    }

    private sealed class Times
    {
        private readonly ConcurrentBag<double> _first = [];
        private readonly ConcurrentBag<double> _between = [];

        public int Tokens => _first.Count + _between.Count;

        public void Add(bool isFirst, double milliseconds) => (isFirst ? _first : _between).Add(milliseconds);

        public string First() => Percentiles(_first);

        public string Between() => Percentiles(_between);

        private static string Percentiles(IEnumerable<double> values)
        {
            double[] sorted = [.. values.Order()];
            return sorted.Length == 0 ? "none" : string.Create(CultureInfo.InvariantCulture, $"p50 {At(0.5):F1}, p95 {At(0.95):F1}, p99 {At(0.99):F1}");

            double At(double share) => sorted[Math.Min(sorted.Length - 1, (int)(share * sorted.Length))];
        }
    }
}
