using System.Diagnostics;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Hosting;

// Room in the cache: which calls start and which leave. Room is computed only after all logits have been sampled.
internal sealed partial class Scheduler
{
    private static readonly TimeSpan FreeInterval = TimeSpan.FromMilliseconds(100);

    private long _freeTokens;
    private long _freeCounted;  // timestamp; 0: never

    // Free capacity in tokens, for the status. Counting shared pages at every step would slow it, so while requests run the count may be FreeInterval old.
    // It discards logits, so it is taken after sampling.
    private long FreeTokens()
    {
        if (!HasWork || _freeCounted == 0 || Stopwatch.GetElapsedTime(_freeCounted) >= FreeInterval)
        {
            try
            {
                _freeTokens = _executor.FreeTokens();
            }
            catch (RuntimeError)
            {
                _freeTokens = 0;  // a failed device takes no more tokens
            }

            _freeCounted = Stopwatch.GetTimestamp();
        }

        return _freeTokens;
    }

    // While others run, the cache keeps room for them to grow. Prefixes are evicted for calls; the prefix that the call continues is evicted last.
    private bool HasRoom(GenerationCall call)
    {
        CacheAmount others = CacheAmount.Sum(_running.Select(other => Growth(other, other.UncachedCount)));
        others += _running.Count == 0 ? default : _room.Reserve;
        CacheAmount whole = _room.Growth(0, call.Tokens.Count + 1) + others;
        if (_room.Has(whole))
        {
            return true;
        }

        // Copies the prefix, because only a copy shows how many tokens it shares.
        call.Prefix = call.Spilled is null ? _prefixes.Find(call.Prompt, call.PrefixKey, onDevice: true) : null;
        if (call.Prefix is { } prefix)
        {
            if (MakeRoom(_room.Growth(prefix.Count, call.Tokens.Count + 1, prefix.Copied) + others))
            {
                return true;
            }

            call.ReleasePrefix();
        }

        return MakeRoom(whole);
    }

    // Evicts prefixes until an amount is free. While calls run, evicts none if all together would not suffice: ending calls will free more.
    private bool MakeRoom(CacheAmount needed)
    {
        if (_running.Count > 0 && !(_room.Free(needed.Tokens) + _prefixes.Evictable(_room)).Covers(needed))
        {
            return false;
        }

        while (!_room.Has(needed))
        {
            if (!_prefixes.Evict())
            {
                return false;
            }
        }

        return true;
    }

    private CacheAmount Growth(GenerationCall call, int count) => _room.Growth(call.CachedCount, call.CachedCount + count, call.Copied);

    // Greatest number of tokens, up to a given one, for which a call has room.
    private int Fitting(GenerationCall call, int most, CacheAmount free)
    {
        if (most <= 0 || free.Covers(Growth(call, most)))
        {
            return most;
        }

        int fit = 0;
        for (int above = most; above - fit > 1;)
        {
            int middle = (fit + above) / 2;
            (fit, above) = free.Covers(Growth(call, middle)) ? (middle, above) : (fit, middle);
        }

        return fit;
    }

    // Least room of the next step: one token of every stream, or one of the first prompt.
    private CacheAmount LeastStep()
    {
        CacheAmount streams = default;
        foreach (GenerationCall call in _running)
        {
            streams += call.IsDecoding ? Growth(call, 1) : default;
        }

        return streams.Tokens > 0 ? streams : Growth(_running[0], 1);
    }

    // Streams have priority: evicts prefixes, then preempts the calls that were admitted last.
    private void MakeRoomForStreams()
    {
        while (_running.Count > 0 && !_room.Has(LeastStep()))
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

            _prefixes.Spill(last);
            _running.RemoveAt(_running.Count - 1);
            _preempted.Insert(0, last);
            _tooLarge = null;
            last.Trace?.Add("llamakivi.preempted");
            _metrics.Preempted();
        }
    }
}
