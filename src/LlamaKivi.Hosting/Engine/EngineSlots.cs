namespace LlamaKivi.Hosting;

/// <summary>The slots of an engine: each runs one request at a time and remembers the conversation that it ran last.</summary>
/// <remarks>The conversation itself is an entry of the prefix cache, so a request in any slot can continue it. Not thread-safe.</remarks>
/// <param name="count">Number of slots.</param>
internal sealed class EngineSlots(int count)
{
    private readonly Slot[] _slots = [.. Enumerable.Range(0, count).Select(_ => new Slot())];
    private long _time;

    /// <summary>Number of slots.</summary>
    public int Count => _slots.Length;

    /// <summary>The slots with the token counts of their requests. A free slot returns the same record until it changes.</summary>
    public IReadOnlyList<SlotStatus> Status
    {
        get
        {
            var status = new SlotStatus[_slots.Length];
            for (int id = 0; id < status.Length; id++)
            {
                Slot slot = _slots[id];
                status[id] = slot.Call is { } call
                    ? new SlotStatus(id, call.CachedCount, call.Prompt.Length, call.Results.CachedTokens, call.GeneratedCount, slot.Used, call.Conversation is not null)
                    : slot.Free ??= new SlotStatus(id, slot.Tokens.Length);
            }

            return status;
        }
    }

    /// <summary>Whether a slot runs a request.</summary>
    public bool IsBusy(int id) => _slots[id].Call is not null;

    /// <summary>The conversation that a slot ran last; empty: none.</summary>
    public (int[] Tokens, string Key) Conversation(int id) => (_slots[id].Tokens, _slots[id].Key);

    /// <summary>Assigns a free slot to a call: the requested one; else the one whose conversation the call continues; else an empty one; else the least recently used.</summary>
    public void Assign(GenerationCall call)
    {
        Slot? wanted = call.Slot is { } id && id < _slots.Length && _slots[id].Call is null ? _slots[id] : null;
        Slot slot = wanted ?? _slots.Where(slot => slot.Call is null).MaxBy(slot => slot.Tokens.Length == 0 ? 0L
            : slot.Key == call.PrefixKey && call.Prompt.AsSpan().StartsWith(slot.Tokens) ? slot.Tokens.Length
            : -slot.Used - 1)!;
        (slot.Call, slot.Used) = (call, ++_time);
    }

    /// <summary>Frees the slot of a call.</summary>
    /// <param name="call">The call.</param>
    /// <param name="tokens">Tokens of its conversation in the prefix cache; empty: it was not kept.</param>
    public void Release(GenerationCall call, int[] tokens)
    {
        if (Array.Find(_slots, slot => slot.Call == call) is { } slot)
        {
            slot.Call = null;
            (slot.Tokens, slot.Key) = (tokens, call.PrefixKey);
        }
    }

    /// <summary>Sets the conversation of a free slot; empty: none.</summary>
    public void Set(int id, int[] tokens, string key)
    {
        Slot slot = _slots[id];
        (slot.Tokens, slot.Key, slot.Used) = (tokens, key, ++_time);
    }

    private sealed class Slot
    {
        public GenerationCall? Call { get; set; }

        public int[] Tokens
        {
            get;
            set
            {
                field = value;
                Free = null;
            }
        } = [];

        public SlotStatus? Free { get; set; }  // its status while it runs no request; null: not computed

        public string Key { get; set; } = "";

        public long Used { get; set; }  // time of the last assignment
    }
}

/// <summary>A slot of an engine, and the request that it runs.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Tokens">Tokens of its conversation.</param>
/// <param name="Prompt">Tokens of the request's prompt.</param>
/// <param name="Reused">Tokens of the prompt that came from the prefix cache.</param>
/// <param name="Generated">Generated tokens of the request.</param>
/// <param name="Admission">Place of the request in the order of admission; 0: no request.</param>
/// <param name="IsRunning">Whether the request has a sequence; a preempted request has none.</param>
internal sealed record SlotStatus(int Id, int Tokens, int Prompt = 0, int Reused = 0, int Generated = 0, long Admission = 0, bool IsRunning = false)
{
    /// <summary>Whether the slot has a request.</summary>
    public bool IsBusy => Admission > 0;
}
