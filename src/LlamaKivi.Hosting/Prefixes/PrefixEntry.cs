using LlamaKivi.Batched;

namespace LlamaKivi.Hosting;

/// <summary>A sequence of the prefix cache, in one or more places: the KV cache, host memory and the disk.</summary>
/// <param name="tokens">Its tokens.</param>
/// <param name="key">Key of the requests that may share it.</param>
internal sealed class PrefixEntry(int[] tokens, string key) : IDisposable
{
    public int[] Tokens { get; } = tokens;

    public string Key { get; } = key;

    /// <summary>The sequence in the KV cache; null: it is not there.</summary>
    public Conversation? Conversation { get; set; }

    /// <summary>Number of its family: the sequences in the KV cache that share pages.</summary>
    public int Family { get; set; }

    /// <summary>Lengths at which the sequence in the KV cache has marks, ascending.</summary>
    public List<int> Marks { get; init; } = [];

    /// <summary>The saved sequence in host memory; null: it is not there.</summary>
    public Conversation.State? State { get; set; }

    /// <summary>Whether the sequence was saved and no request has continued the copy yet.</summary>
    public bool IsCopyUnused { get; set; }

    /// <summary>The saved sequence on the disk; null: it is not there.</summary>
    public PrefixFile? File { get; set; }

    /// <summary>Smallest length to which the saved sequence can be truncated exactly.</summary>
    public int SavedExactFrom { get; set; } = tokens.Length;

    public PrefixTier Tier => Conversation is not null ? PrefixTier.Device : State is not null ? PrefixTier.Host : PrefixTier.Disk;

    public bool IsLost => Conversation is null && State is null && File is null;

    /// <summary>Greatest length, up to a given one, at which another sequence can continue this one exactly; 0: none.</summary>
    public int ExactCount(int most) => Conversation is not null ? Conversation.ExactCount(most) : most >= SavedExactFrom ? most : 0;

    /// <summary>Frees the sequence in the KV cache and in host memory.</summary>
    public void Dispose()
    {
        Conversation?.Dispose();
        Conversation = null;
        Marks.Clear();
        State?.Dispose();
        State = null;
    }
}
