using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

/// <summary>Counts of a scheduler.</summary>
/// <param name="Running">Calls with a sequence.</param>
/// <param name="Preempted">Calls whose sequence is in host memory.</param>
/// <param name="Usage">The KV cache.</param>
/// <param name="Free">Free capacity of the KV cache in tokens; those of shared pages count once.</param>
/// <param name="Slots">The slots with their requests.</param>
internal sealed record SchedulerStatus(int Running, int Preempted, CacheUsage Usage, long Free, IReadOnlyList<SlotStatus> Slots)
{
    /// <summary>The slots of running requests, in order of admission.</summary>
    public IReadOnlyList<SlotStatus> Requests => [.. Slots.Where(slot => slot.IsRunning).OrderBy(slot => slot.Admission)];
}
