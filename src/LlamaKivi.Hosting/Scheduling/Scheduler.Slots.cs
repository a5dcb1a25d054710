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
                $"Slot {slot} has no conversation: none ran in it, or the prefix cache has no room for it. Run a request with this slot, or raise PrefixCache:HostBytes.");
    }

    /// <summary>Loads a conversation into a free slot. Returns its number of tokens.</summary>
    public int RestoreSlot(int slot, int[] tokens, string key, byte[] state)
    {
        CacheAmount pending = CacheAmount.Sum(_running.Select(call => Growth(call, call.UncachedCount)));
        if (!_room.CanHold(tokens.Length, out _) || !MakeRoom(_room.Growth(0, tokens.Length) + pending))
        {
            long free = Math.Max(0, _room.Free(tokens.Length + pending.Tokens).Tokens - pending.Tokens);
            throw new ContextOverflowException($"The conversation has {tokens.Length} tokens, and {free} are free in the cache. Retry later, or raise ContextSize{(_options.KvCache.MemoryBudget is null ? "" : " and KvCache.MemoryBudget")}.");
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
        _tooLarge = null;
        _slots.Set(slot, [], "");
        Publish();
        return tokens.Length;
    }
}
