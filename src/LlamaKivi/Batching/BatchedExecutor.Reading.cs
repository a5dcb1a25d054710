using System.Diagnostics;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

// A batch: planned, decoded, taken off the queue.
public sealed partial class BatchedExecutor
{
    private int[] _tokens = [];
    private int[] _sequences = [];
    private byte[] _outputs = [];
    private int[]? _tooMany;    // tokens that no cache of this size holds

    private DecodeResult Read(ContextTurn turn, CancellationToken cancellation)
    {
        using ContextCall call = Context.Handle.Enter(turn);
        BatchPlan plan = Plan(Room());
        if (plan.WithoutRoom.Count > 0 && _sharesPages)
        {
            plan = Plan(ExactRoom());
        }

        while (plan.Count > 0)
        {
            try
            {
                Decode(plan, cancellation);
                Take(plan);
                return DecodeResult.Ok;
            }
            catch (KvCacheFullException e)
            {
                // Somebody else has taken room in the meantime.
                int before = plan.Count;
                plan = Plan(e.Available);
                if (plan.Count >= before)
                {
                    throw new UnreachableException($"The engine has no room for {before} tokens and says that it has room for {e.Available}.", e);
                }
            }
        }

        return DecodeResult.NoKvSlot;
    }

    private BatchPlan Plan(long room)
    {
        lock (_gate)
        {
            BatchPlan plan = BatchPlan.Make(_queue, checked((int)Context.BatchSize), room);
            _queue.ForEach(prompt => prompt.Conversation.WaitsForRoom = plan.WithoutRoom.Contains(prompt));
            return plan;
        }
    }

    // Tokens that there is room for at least.
    private long Room()
    {
        CacheUsage usage = Context.KvCacheUsage;
        return usage.Capacity - usage.Tokens;
    }

    // Forks share pages, so there may be more room than the lengths of the sequences leave. The engine says how much when it refuses a batch, which it does before it computes anything; but it
    // forgets the logits of the batch before.
    private long ExactRoom()
    {
        Epoch++;
        try
        {
            Context.Handle.Decode(_tooMany ??= new int[Context.ContextSize + 1]);
        }
        catch (KvCacheFullException e)
        {
            return e.Available;
        }

        throw new UnreachableException("The engine took more tokens than its cache holds.");
    }

    private void Decode(BatchPlan plan, CancellationToken cancellation)
    {
        if (_tokens.Length < plan.Count)
        {
            _tokens = new int[plan.Count];
            _sequences = new int[plan.Count];
            _outputs = new byte[plan.Count];
        }

        float[] embeddings = new float[plan.Count * plan.Width];
        foreach ((PendingPrompt prompt, int count, int first) in plan.Parts)
        {
            if (plan.Width > 0)
            {
                prompt.Embeddings.Span[..(count * plan.Width)].CopyTo(embeddings.AsSpan(first * plan.Width));
            }
            else
            {
                prompt.Tokens.Span[..count].CopyTo(_tokens.AsSpan(first));
            }

            _sequences.AsSpan(first, count).Fill((int)prompt.Conversation.ConversationId);
            _outputs.AsSpan(first, count).Fill(prompt.AllLogits ? (byte)1 : (byte)0);
            if (count == prompt.Count)
            {
                _outputs[first + count - 1] = 1;
            }
        }

        cancellation.ThrowIfCancellationRequested();
        Epoch++;
        ReadOnlySpan<int> sequences = _sequences.AsSpan(0, plan.Count);
        ReadOnlySpan<byte> outputs = _outputs.AsSpan(0, plan.Count);
        if (plan.Width > 0)
        {
            Context.Handle.DecodeEmbeddings(embeddings, sequences, outputs: outputs, cancellationToken: cancellation);
        }
        else
        {
            Context.Handle.Decode(_tokens.AsSpan(0, plan.Count), sequences, outputs: outputs, cancellationToken: cancellation);
        }
    }

    // Takes what was read off the queue.
    private void Take(BatchPlan plan)
    {
        lock (_gate)
        {
            foreach ((PendingPrompt prompt, int count, int first) in plan.Parts)
            {
                int place = _queue.IndexOf(prompt);
                if (place < 0)
                {
                    continue;  // its conversation was disposed of
                }

                if (count < prompt.Count)
                {
                    _queue[place] = prompt.Without(count);
                }
                else
                {
                    _queue.RemoveAt(place);
                    prompt.Conversation.WasRead(Epoch, first + count - 1);
                }
            }
        }
    }
}
