using System.Diagnostics;
using System.Globalization;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Not beside other tests, whose memory would count.</summary>
[CollectionDefinition(nameof(LoadTests), DisableParallelization = true)]
[Collection(nameof(LoadTests))]
public sealed class LoadTests
{
    /// <summary>Requests of the load; LK_LOAD_REQUESTS raises it.</summary>
    private static readonly int Requests = int.Parse(Environment.GetEnvironmentVariable("LK_LOAD_REQUESTS") ?? "80", CultureInfo.InvariantCulture);

    [Fact]
    public async Task Under_load_nothing_is_lost_and_nothing_stays()
    {
        const int Clients = 64;
        using InferenceEngine engine = await Engines.StartAsync(Engines.Options(contextSize: 4096, sequences: 16) with
        {
            MaxWaiting = Clients,
            PrefixCache = Engines.Prefixes with { MaxEntries = 8, HostBytes = 8 << 20 },  // full early, so that growth shows
        });
        await engine.InferAsync("Hello", Engines.Greedy(4)).TextAsync();
        long before = Resident();
        long peak = before;
        long warm = 0;  // when a third of the requests has ended
        int next = 0;
        int done = 0;
        int cancelled = 0;
        int preempted = 0;
        var firsts = new List<double>();
        var gaps = new List<double>();
        Task[] clients = [.. Enumerable.Range(0, Clients).Select(_ => Task.Run(async () =>
        {
            while (true)
            {
                int number = Interlocked.Increment(ref next);
                if (number > Requests)
                {
                    return;
                }

                var random = new Random(number);
                string prompt = string.Concat(Enumerable.Range(0, random.Next(2, 80)).Select(_ => $"{random.Next(100)} "));
                int tokens = random.Next(1, 48);
                bool hangsUp = number % 20 == 0;
                using var stop = new CancellationTokenSource();
                long start = Stopwatch.GetTimestamp();
                long last = 0;
                InferenceStream stream = engine.InferAsync(prompt, Engines.Greedy(hangsUp ? 1000 : tokens), stop.Token);
                try
                {
                    await foreach (string piece in stream)
                    {
                        lock (firsts)
                        {
                            (last == 0 ? firsts : gaps).Add(Stopwatch.GetElapsedTime(last == 0 ? start : last).TotalMilliseconds);
                        }

                        last = Stopwatch.GetTimestamp();
                        if (hangsUp)
                        {
                            await stop.CancelAsync();
                        }
                    }

                    Assert.NotEqual(StopReason.None, stream.StopReason);
                    Assert.InRange(stream.Timings.GeneratedTokens, 1, hangsUp ? 1000 : tokens);
                    Interlocked.Increment(ref done);
                }
                catch (OperationCanceledException) when (hangsUp)
                {
                    Interlocked.Increment(ref cancelled);
                }
            }
        }))];
        Task all = Task.WhenAll(clients);
        while (!all.IsCompleted)
        {
            long now = Resident();
            peak = Math.Max(peak, now);
            warm = warm == 0 && Volatile.Read(ref done) > Requests / 3 ? now : warm;
            preempted = Math.Max(preempted, engine.Status.Preempted);
            await Task.WhenAny(all, Task.Delay(50));
        }

        await all;
        while (engine.Status is not { Running: 0, Waiting: 0, Preempted: 0 })
        {
            await Task.Delay(1);
        }

        Assert.Equal(Requests, done + cancelled);
        long after = Resident();
        firsts.Sort();
        gaps.Sort();
        TestContext.Current.TestOutputHelper?.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{Requests} requests, {cancelled} cancelled, {preempted} preempted at once at most; MiB before {before >> 20}, after a third {warm >> 20}, peak {peak >> 20}, after {after >> 20}; ms to the first token p50 {At(firsts, 50):F0} p95 {At(firsts, 95):F0} p99 {At(firsts, 99):F0}; between tokens p50 {At(gaps, 50):F1} p95 {At(gaps, 95):F1} p99 {At(gaps, 99):F1}"));
        Assert.True(after < Math.Max(warm, before) + (128L << 20), $"{before >> 20} MiB before, {warm >> 20} after a third of the requests, {after >> 20} after all");
    }

    private static double At(List<double> sorted, int percent) => sorted.Count == 0 ? 0 : sorted[Math.Min(sorted.Count - 1, sorted.Count * percent / 100)];

    private static long Resident()
    {
        using Process process = Process.GetCurrentProcess();
        return process.WorkingSet64;
    }
}
