using LlamaKivi.Batched;

namespace LlamaKivi.Hosting;

/// <summary>A sequence that continues an entry of the prefix cache.</summary>
/// <param name="Conversation">The sequence.</param>
/// <param name="Count">Its number of tokens.</param>
/// <param name="Tier">Where the entry was.</param>
internal sealed record PrefixHit(Conversation Conversation, int Count, PrefixTier Tier);

/// <summary>Where an entry of the prefix cache is.</summary>
internal enum PrefixTier
{
    /// <summary>In the KV cache.</summary>
    Device,

    /// <summary>In host memory.</summary>
    Host,

    /// <summary>In a file.</summary>
    Disk,
}
