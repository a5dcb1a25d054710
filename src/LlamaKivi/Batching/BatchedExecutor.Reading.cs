using System.Diagnostics;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

// Planning and decoding batches.
public sealed partial class BatchedExecutor
{
    private int[] _tokens = [];
    private int[] _sequences = [];
    private byte[] _outputs = [];
    private readonly SamplingBatch _samplings = new();
    private int[]? _tooMany;    // more tokens than any cache of this size can hold

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
                // Another user of the context has taken cache space in between.
                int before = plan.Count;
                plan = Plan(e.Available);
                if (plan.Count >= before)
                {
                    throw new UnreachableException($"The engine rejected {before} tokens for lack of room, but reports room for {e.Available}.", e);
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

    /// <summary>Free capacity in tokens; pages that sequences share count once. Discards the logits of the last batch.</summary>
    internal long FreeTokens()
    {
        CheckIdle(nameof(FreeTokens));
        using ContextCall call = Context.Handle.Enter(nameof(BatchedExecutor));
        return _sharesPages ? ExactRoom() : Room();
    }

    // Lower bound of the free capacity in tokens.
    private long Room()
    {
        CacheUsage usage = Context.KvCacheUsage;
        return usage.Capacity - usage.Tokens;
    }

    // Forks share pages, so the exact free capacity can exceed the estimate from sequence lengths. The engine reports it when it rejects a batch that is too large, before computing
    // anything; the rejection discards the logits of the previous batch.
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

        throw new UnreachableException("The engine accepted more tokens than its cache can hold.");
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
            _outputs.AsSpan(first, count).Fill(prompt.Outputs == PromptOutputs.All ? (byte)1 : (byte)0);
            if (count == prompt.Count && prompt.Outputs != PromptOutputs.None)
            {
                _outputs[first + count - 1] = 1;
            }
        }

        DescribeSamplings(plan);

        cancellation.ThrowIfCancellationRequested();
        Epoch++;
        ReadOnlySpan<int> sequences = _sequences.AsSpan(0, plan.Count);
        ReadOnlySpan<byte> outputs = _outputs.AsSpan(0, plan.Count);
        if (plan.Width > 0)
        {
            Context.Handle.DecodeEmbeddings(embeddings, sequences, outputs: outputs, cancellationToken: cancellation);
        }
        else if (!_samplings.SamplesAny || !TrySample(_tokens.AsSpan(0, plan.Count), sequences, outputs, cancellation))
        {
            Context.Handle.Decode(_tokens.AsSpan(0, plan.Count), sequences, outputs: outputs, cancellationToken: cancellation);
        }
    }

    // Decodes and samples. Returns false, with nothing changed, if the engine refused: the settings of one row, such as an extreme penalty, must not fail the others.
    // From its logits only the pipeline of that row fails.
    private bool TrySample(ReadOnlySpan<int> tokens, ReadOnlySpan<int> sequences, ReadOnlySpan<byte> outputs, CancellationToken cancellation)
    {
        try
        {
            Context.Handle.DecodeSample(tokens, _samplings.Parameters, _samplings.Tokens, _samplings.Recent, sequences, outputs: outputs, cancellationToken: cancellation);
            return true;
        }
        catch (Exception e) when (e is NumericErrorException or ArgumentException)
        {
            _samplings.Clear();
            return false;
        }
    }

    // One sampling per output, in the batch's order.
    private void DescribeSamplings(BatchPlan plan)
    {
        _samplings.Clear();
        if (plan.Width > 0)
        {
            return;
        }

        int? newline = Model.Tokenizer.NewlineId;
        foreach ((PendingPrompt prompt, int count, _) in plan.Parts)
        {
            if (prompt.Outputs == PromptOutputs.All)
            {
                for (int i = 0; i < count; i++)
                {
                    _samplings.Add(null, newline);
                }
            }
            else if (count == prompt.Count && prompt.Outputs == PromptOutputs.Last)
            {
                _samplings.Add(prompt.Sampler, newline);
            }
        }
    }

    // Returns the token that the engine sampled after a part. output: number of outputs before the part; the part's outputs are added.
    private int SampledAfter(PendingPrompt prompt, int count, ref int output)
    {
        if (prompt.Outputs == PromptOutputs.All)
        {
            output += count;
        }
        else if (count == prompt.Count && prompt.Outputs == PromptOutputs.Last)
        {
            return _samplings.Tokens[output++];
        }

        return Conversation.NotSampled;
    }

    // Removes the decoded tokens from the queue.
    private void Take(BatchPlan plan)
    {
        int output = 0;
        lock (_gate)
        {
            foreach ((PendingPrompt prompt, int count, int first) in plan.Parts)
            {
                int sampled = _samplings.SamplesAny ? SampledAfter(prompt, count, ref output) : Conversation.NotSampled;
                int place = _queue.IndexOf(prompt);
                if (place < 0)
                {
                    continue;  // its conversation has been disposed of
                }

                if (count < prompt.Count)
                {
                    _queue[place] = prompt.Without(count);
                }
                else
                {
                    _queue.RemoveAt(place);
                    prompt.Conversation.WasRead(Epoch, first + count - 1, prompt.Sampler, sampled);
                }
            }
        }
    }
}
