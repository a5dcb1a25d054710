using System.Diagnostics;

namespace LlamaKivi.Tests;

/// <summary>Collection of objects that nobody refers to.</summary>
internal static class Collector
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Collects until a condition holds. Once is not enough: the stack of the thread that ran the last step of an awaited call may hold its locals for a moment longer.
    /// </summary>
    /// <returns>Whether the condition holds; finalizers of what was collected have run.</returns>
    public static async Task<bool> CollectUntilAsync(Func<bool> condition)
    {
        long start = Stopwatch.GetTimestamp();
        bool holds;
        do
        {
            await Task.Delay(1);
            GC.Collect();
            GC.WaitForPendingFinalizers();
            holds = condition();
        }
        while (!holds && Stopwatch.GetElapsedTime(start) < Limit);
        GC.WaitForPendingFinalizers();
        return holds;
    }
}
