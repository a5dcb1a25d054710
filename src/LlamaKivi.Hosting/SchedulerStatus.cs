using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

/// <summary>Counts of a scheduler.</summary>
/// <param name="Running">Calls with a sequence.</param>
/// <param name="Preempted">Calls whose sequence is in host memory.</param>
/// <param name="Usage">The KV cache.</param>
/// <param name="Requests">The running calls, in order of admission.</param>
/// <param name="Slots">The slots.</param>
internal sealed record SchedulerStatus(int Running, int Preempted, CacheUsage Usage, IReadOnlyList<RunningRequest> Requests, IReadOnlyList<SlotStatus> Slots);

/// <summary>Tokens of a running request.</summary>
/// <param name="Prompt">Tokens of the prompt.</param>
/// <param name="Reused">Tokens of the prompt that came from the prefix cache.</param>
/// <param name="Generated">Generated tokens.</param>
/// <param name="Cached">Tokens in the KV cache.</param>
internal sealed record RunningRequest(int Prompt, int Reused, int Generated, int Cached);
