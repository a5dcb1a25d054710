using LlamaKivi.Exceptions;

namespace LlamaKivi.Hosting;

// Slots: names for the conversations in the prefix cache.
internal sealed partial class Scheduler
{
    private readonly EngineSlots _slots;
    private readonly Lazy<byte[]> _identity;

    /// <summary>Hash of what makes states interchangeable.</summary>
    public byte[] Identity => _identity.Value;

    /// <summary>Whether a slot runs a request.</summary>
    public bool IsBusy(int slot) => _slots.IsBusy(slot);

    /// <summary>Copies the conversation of a free slot.</summary>
    public (int[] Tokens, string Key, byte[] State, byte[] Identity) CopySlot(int slot)
    {
        (int[] tokens, string key) = _slots.Conversation(slot);
        return tokens.Length > 0 && _prefixes.Copy(tokens, key) is { } state
            ? (tokens, key, state, Identity)
            : throw new SlotEmptyException(
                $"Slot {slot} has no conversation: none ran in it, or the prefix cache has no room for it. Run a request with this slot, or raise PrefixCache:MaxShare, MaxEntries or HostBytes.");
    }

    /// <summary>Loads a conversation into a free slot. Returns its number of tokens.</summary>
    public int RestoreSlot(int slot, int[] tokens, string key, byte[] state)
    {
        long needed = tokens.Length + Pending();
        while (FreeTokens(needed) is var free && free < needed)
        {
            if (!_prefixes.Evict())
            {
                throw new ContextOverflowException($"The conversation has {tokens.Length} tokens, and {free - Pending()} are free in the cache. Retry later, or raise ContextSize.");
            }
        }

        _prefixes.Restore(tokens, key, state);
        _slots.Set(slot, tokens, key);
        Publish();
        return tokens.Length;
    }

    /// <summary>Removes the conversation of a free slot. Returns its number of tokens.</summary>
    public int EraseSlot(int slot)
    {
        (int[] tokens, string key) = _slots.Conversation(slot);
        _prefixes.Erase(tokens, key);
        _slots.Set(slot, [], "");
        Publish();
        return tokens.Length;
    }
}
