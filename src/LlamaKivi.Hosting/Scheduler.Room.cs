using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

// Room in the cache: who may start, and who leaves.
internal sealed partial class Scheduler
{
    // Free tokens of the cache: a lower bound, in which sequences that share pages count whole, if that is enough; otherwise the exact number. All logits have been sampled when it is called.
    private long FreeTokens(long enough)
    {
        CacheUsage usage = Context.KvCacheUsage;
        return usage.Capacity - usage.Tokens >= enough ? usage.Capacity - usage.Tokens : _executor.FreeTokens();
    }

    // While others run, the cache keeps room for them to grow. Prefixes give way to calls, the one that the call continues last.
    private bool HasRoom(GenerationCall call)
    {
        long reserve = _running.Count == 0 ? 0 : (long)((1 - _options.Watermark) * Context.ContextSize);
        long needed = call.Tokens.Count + 1L + reserve + Pending();
        while (FreeTokens(needed) < needed)
        {
            if (call.Spilled is null && FitsBehindPrefix(call, needed))
            {
                return true;
            }

            if (!_prefixes.Evict())
            {
                return false;
            }
        }

        return true;
    }

    // A copy of the prefix shows what it shares.
    private bool FitsBehindPrefix(GenerationCall call, long needed)
    {
        if (_prefixes.TryFork(call.Prompt, call.PrefixKey) is not { } prefix)
        {
            return false;
        }

        using (prefix.Conversation)
        {
            needed -= prefix.Count;
            return FreeTokens(needed) >= needed;
        }
    }

    // Tokens that admitted calls have yet to decode.
    private long Pending() => _running.Sum(call => (long)call.UncachedCount);

    // Streams come first: prefixes leave, then the calls that were admitted last.
    private void MakeRoomForStreams()
    {
        while (Math.Max(1, _running.Count(call => call.IsDecoding)) is var needed && FreeTokens(needed) < needed)
        {
            if (_prefixes.Evict())
            {
                continue;
            }

            GenerationCall last = _running[^1];
            if (_running.Count == 1)
            {
                last.Complete(StopReason.ContextFull);
                RemoveComplete();
                return;
            }

            last.Spilled = last.Conversation!.Save();
            last.Conversation.Dispose();
            last.Conversation = null;
            _running.RemoveAt(_running.Count - 1);
            _preempted.Insert(0, last);
            last.Trace?.Add("llamakivi.preempted");
            _metrics.Preempted();
        }
    }
}
