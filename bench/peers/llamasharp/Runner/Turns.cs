using System.Diagnostics;
using System.Globalization;

namespace PeerBenchmark;

/// <summary>The same steps for a machine that others use too: the libraries take turns within each round, and the medians of the rounds are compared.</summary>
internal static class Turns
{
    // A busy machine can take seconds for a step: no step has more than this, in seconds, once it has three rounds.
    private const double Patience = 60;

    /// <summary>Compares the libraries.</summary>
    /// <param name="most">Rounds of a step, at most.</param>
    /// <param name="filter">Part of the names of the steps to run.</param>
    public static void Run(int most, string filter)
    {
        IWorkload[] workloads = [.. Libraries.Names.Select(Libraries.Create)];
        Console.WriteLine($"up to {most} rounds; milliseconds: median (fastest); managed allocation of a step; peak resident memory of a process that runs the step once");
        Console.WriteLine($"| step | {string.Join(" | ", Libraries.Names)} |");
        Console.WriteLine($"|---|{string.Concat(Libraries.Names.Select(_ => "---|"))}");
        foreach ((string name, Action<IWorkload> step) in Libraries.Steps.Where(step => step.Key.Contains(filter, StringComparison.Ordinal)))
        {
            List<(double Milliseconds, long Bytes)>[] figures = [.. workloads.Select(_ => new List<(double, long)>())];
            foreach (IWorkload workload in workloads)
            {
                step(workload);
            }

            long begin = Stopwatch.GetTimestamp();
            for (int round = 0; round < most && (round < 3 || Stopwatch.GetElapsedTime(begin).TotalSeconds < Patience); round++)
            {
                for (int turn = 0; turn < workloads.Length; turn++)
                {
                    // Who comes first changes too.
                    int i = (turn + round) % workloads.Length;
                    long bytes = GC.GetTotalAllocatedBytes(precise: true);
                    long start = Stopwatch.GetTimestamp();
                    step(workloads[i]);
                    figures[i].Add((Stopwatch.GetElapsedTime(start).TotalMilliseconds, GC.GetTotalAllocatedBytes(precise: true) - bytes));
                }
            }

            IEnumerable<string> cells = figures.Select((runs, i) => string.Create(
                CultureInfo.InvariantCulture,
                $"{Median(runs.Select(run => run.Milliseconds)):F1} ({runs.Min(run => run.Milliseconds):F1}) ms, {Median(runs.Select(run => run.Bytes / 1024.0)):F1} kB, {PeakOf(Libraries.Names[i], name)} MiB"));
            Console.WriteLine($"| {name} ({figures[0].Count} rounds) | {string.Join(" | ", cells)} |");
        }

        Array.ForEach(workloads, workload => workload.Dispose());
    }

    /// <summary>Runs a step once and gives this process's peak resident memory in MiB.</summary>
    public static long Peak(string library, string step)
    {
        using (IWorkload workload = Libraries.Create(library))
        {
            Libraries.Steps[step](workload);
        }

        using var process = Process.GetCurrentProcess();
        return process.PeakWorkingSet64 >> 20;
    }

    private static string PeakOf(string library, string step)
    {
        using Process process = Process.Start(new ProcessStartInfo(Environment.ProcessPath!, ["peak", library, step]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        process.ErrorDataReceived += (_, _) => { };
        process.BeginErrorReadLine();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output.Trim().Split('\n')[^1] : throw new InvalidOperationException($"{library} failed at '{step}'.");
    }

    private static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted[sorted.Length / 2];
    }
}
