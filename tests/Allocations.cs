namespace LlamaKivi.TestHelpers;

/// <summary>Managed memory that code allocates.</summary>
internal static class Allocations
{
    private const int Rounds = 3;

    /// <summary>Bytes that an action allocates on this thread whenever it runs: the least of three times, because the runtime itself may allocate once.</summary>
    public static long Of(Action action) => Enumerable.Range(0, Rounds).Select(_ =>
    {
        long before = GC.GetAllocatedBytesForCurrentThread();
        action();
        return GC.GetAllocatedBytesForCurrentThread() - before;
    }).ToArray().Min();
}
