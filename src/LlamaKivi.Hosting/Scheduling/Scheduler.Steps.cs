using System.Runtime.InteropServices;
using LlamaKivi.Batched;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

// The parts of a step.
internal sealed partial class Scheduler
{
    private void EndPreempted(GenerationCall call)
    {
        _preempted.Remove(call);
        call.Complete(StopReason.ContextFull);
        _slots.Release(call, []);
        call.Dispose();
        _metrics.Ended(call);
    }

    private void RemoveAbandoned()
    {
        if (!_running.Exists(static call => call.IsAbandoned) && !_preempted.Exists(static call => call.IsAbandoned))
        {
            return;
        }

        foreach (GenerationCall call in _running.FindAll(call => call.IsAbandoned))
        {
            Remove(call);
            Cancel(call);
        }

        foreach (GenerationCall call in _preempted.FindAll(call => call.IsAbandoned))
        {
            _preempted.Remove(call);
            _slots.Release(call, []);
            Cancel(call);
        }
    }

    private void Restore()
    {
        while (_preempted.Count > 0 && _running.Count < _options.SeqMax && HasRoom(_preempted[0]))
        {
            GenerationCall call = _preempted[0];
            (call.Conversation, call.Family) = (_executor.Load(call.Spilled!), _prefixes.NextFamily());
            call.Spilled!.Dispose();
            call.Spilled = null;
            _preempted.RemoveAt(0);
            _running.Add(call);
            call.Trace?.Add("llamakivi.restored");
        }
    }

    // Queues the tokens of the step. Returns the number of streams that decode a token, and of prompt tokens.
    private (int Streams, int PromptTokens) Plan()
    {
        MakeRoomForStreams();
        int streams = 0;
        int left = (int)Context.BatchSize;
        CacheAmount taken = default;
        foreach (GenerationCall call in _running)
        {
            if (call.IsDecoding && streams < left)
            {
                call.Conversation!.Prompt(CollectionsMarshal.AsSpan(call.Tokens)[^1..], PromptOutputs.Last, call.Sampler);
                taken += Growth(call, 1);
                streams++;
            }
        }

        int reading = _running.Count(static call => !call.IsDecoding);
        if (reading == 0)
        {
            return (streams, 0);
        }

        CacheAmount free = _room.Free(left + ((long)_running.Count * CacheRoom.PageTokens));
        int most = Math.Min(left - streams, _budget.For(streams, reading));
        int promptTokens = 0;
        foreach (GenerationCall call in _running.Where(call => !call.IsDecoding))
        {
            int end = call.Positions.TryPeek(out int position) ? position : call.Tokens.Count;
            int count = Fitting(call, Math.Min(end - call.CachedCount, most - promptTokens), free - taken);
            if (count <= 0)
            {
                break;
            }

            bool samples = count == call.UncachedCount && call.Options.MaxTokens != 0;
            call.Conversation!.Prompt(CollectionsMarshal.AsSpan(call.Tokens).Slice(call.CachedCount, count), samples ? PromptOutputs.Last : PromptOutputs.None, call.Sampler);
            taken += Growth(call, count);
            promptTokens += count;
        }

        return (streams, promptTokens);
    }

    private void SetMarks()
    {
        foreach (GenerationCall call in _running)
        {
            if (call.Positions.TryPeek(out int position) && call.CachedCount >= position)
            {
                call.Positions.Dequeue();
                if (call.CachedCount == position)
                {
                    _prefixes.Mark(call);
                    _tooLarge = null;  // the waiting call may fit if it continues at the mark
                }
            }
        }
    }

    private void Sample()
    {
        foreach (GenerationCall call in _running)
        {
            if (call.UncachedCount > 0)
            {
                continue;
            }

            try
            {
                if (call.Options.MaxTokens == 0)
                {
                    call.Complete(StopReason.MaxTokens);
                    continue;
                }

                call.Sample();
                _metrics.Totals.Sampled();
                if (!call.IsComplete && call.Tokens.Count > Context.ContextSize)
                {
                    call.Complete(StopReason.ContextFull);
                }
            }
            catch (Exception e)
            {
                call.Fail(e);  // its own pipeline failed; the other calls continue
            }
        }
    }

    private void RemoveComplete()
    {
        if (!_running.Exists(static call => call.IsComplete))
        {
            return;
        }

        foreach (GenerationCall call in _running.FindAll(static call => call.IsComplete))
        {
            Remove(call);
            call.Dispose();
            _metrics.Ended(call);
        }
    }

    // The prefix cache takes over the sequence, because the next turn of the conversation begins with its tokens.
    private void Remove(GenerationCall call)
    {
        _tooLarge = null;
        _running.Remove(call);
        _slots.Release(call, _prefixes.Add(call) ? [.. call.CachedTokens] : []);
    }
}
