using LlamaKivi.Batched;

namespace LlamaKivi.Hosting;

/// <summary>A sequence with the first tokens of a prompt, from the prefix cache.</summary>
/// <param name="Conversation">The sequence.</param>
/// <param name="Count">Its number of tokens.</param>
/// <param name="Tier">Where it was.</param>
/// <param name="Marks">Lengths at which it has marks, ascending.</param>
/// <param name="Copied">Tokens of its shared unfinished page: the first append to that page copies them.</param>
/// <param name="Family">Number of its family: the sequences that share pages.</param>
internal sealed record PrefixHit(Conversation Conversation, int Count, PrefixTier Tier, IEnumerable<int> Marks, int Copied, int Family);

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
