using System.Diagnostics;
using LlamaKivi.Batched;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>Runs calls on one context, step by step: continuous batching with chunked prefill, preemption and a prefix cache.</summary>
/// <remarks>
/// A step: 1. removes abandoned calls, 2. restores preempted calls, then starts waiting ones, while the cache has room, 3. plans the batch: a token of every running stream, then prompt tokens
/// in order of admission, 4. decodes it, 5. samples every sequence whose tokens are all cached. Used by one thread at a time.
/// </remarks>
internal sealed partial class Scheduler : IDisposable
{
    private readonly BatchedExecutor _executor;
    private readonly InferenceEngineOptions _options;
    private readonly EngineMetrics _metrics;
    private readonly ILogger _logger;
    private readonly PrefillBudget _budget;
    private readonly PrefixCache _prefixes;
    private readonly List<GenerationCall> _running = [];    // in order of admission
    private readonly List<GenerationCall> _preempted = [];  // oldest first

    private const uint LeastSequences = 256;

    private SchedulerStatus _status;

    public Scheduler(LLamaWeights weights, InferenceEngineOptions options, EngineMetrics metrics, ILogger logger)
    {
        _options = options;
        _metrics = metrics;
        _logger = logger;
        _executor = new BatchedExecutor(weights, WithSequencesForPrefixes(options));
        ContextSize = Context.ContextSize;
        _budget = new PrefillBudget(checked((int)_executor.Context.BatchSize));
        _identity = new(() => PrefixFiles.Identity(weights, options));
        _prefixes = new PrefixCache(_executor, options.PrefixCache, _identity, logger);
        _slots = new EngineSlots(checked((int)options.SeqMax));
        _status = new SchedulerStatus(0, 0, Context.KvCacheUsage, [], _slots.Status);
    }

    public LLamaContext Context => _executor.Context;

    /// <summary>Capacity of the cache in tokens; readable after disposal.</summary>
    public uint ContextSize { get; }

    /// <summary>Counts after the last step, readable from any thread: running calls, preempted calls, and the cache, which cannot be read during a step.</summary>
    public SchedulerStatus Status => Volatile.Read(ref _status);

    public bool HasWork => _running.Count + _preempted.Count > 0;

    /// <summary>Whether a waiting call can start now.</summary>
    public bool CanStart(GenerationCall call) => _preempted.Count == 0 && _running.Count < _options.SeqMax && HasRoom(call);

    /// <summary>Starts a waiting call.</summary>
    public void Start(GenerationCall call)
    {
        try
        {
            call.Begin();
            if (_prefixes.Find(call.Prompt, call.PrefixKey) is { } prefix)
            {
                (call.Conversation, call.CachedCount) = (prefix.Conversation, prefix.Count);
                call.Results.CachedTokens = prefix.Count;
                _metrics.Hit(prefix.Tier);
            }
            else
            {
                call.Conversation = _executor.Create();
            }

            _metrics.Admitted(call.Results.CachedTokens, call.Prompt.Length);
            foreach (int mark in _prefixes.Marks(call.Prompt, call.CachedCount, call.PrefixKey, _executor.Context.Weights.Tokenizer.IsEndOfGeneration))
            {
                call.Marks.Enqueue(mark);
            }

            _slots.Assign(call);
            _running.Add(call);
            Publish();
        }
        catch (Exception e)
        {
            Refuse(call, e);
        }
    }

    /// <summary>Ends a call with an error. The call is in no list; any thread may end it.</summary>
    public void Refuse(GenerationCall call, Exception error)
    {
        call.Fail(error);
        call.Dispose();
        _metrics.Ended(call);
    }

    /// <summary>Ends a call that nobody reads further.</summary>
    public void Cancel(GenerationCall call) => Refuse(call, new OperationCanceledException(call.Cancellation));

    /// <summary>Takes a step. Without running calls nothing happens. An error fails the running calls; the next calls start afresh.</summary>
    public async Task StepAsync()
    {
        try
        {
            await TakeStepAsync().ConfigureAwait(false);
        }
        catch (Exception e)
        {
            LogStepFailed(e);
            FailAll(e);
            _prefixes.Clear();
        }

        Publish();
    }

    private async Task TakeStepAsync()
    {
        RemoveAbandoned();
        Restore();
        if (_running.Count == 0)
        {
            if (_preempted.Count > 0)
            {
                // Alone in the cache it has no room: it filled the cache before.
                EndPreempted(_preempted[0]);
            }

            return;
        }

        long start = Stopwatch.GetTimestamp();
        (int streams, int promptTokens) = Plan();
        if (streams + promptTokens == 0)
        {
            return;
        }

        DecodeResult result = await _executor.Infer().ConfigureAwait(false);
        if (result != DecodeResult.Ok)
        {
            throw new UnreachableException($"The cache refused a batch of {streams + promptTokens} tokens that it has room for: {result}.");
        }

        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        _budget.Record(streams, promptTokens, seconds);
        foreach (GenerationCall call in _running)
        {
            call.CachedCount = call.Conversation!.TokenCount;
        }

        KeepMarks();
        Sample();
        RemoveComplete();
        _metrics.Stepped(streams, promptTokens, Stopwatch.GetElapsedTime(start));
    }

    /// <summary>Ends all calls with an error.</summary>
    public void FailAll(Exception error)
    {
        foreach (GenerationCall call in _running.Concat(_preempted))
        {
            _slots.Release(call, []);
            Refuse(call, error);
        }

        _running.Clear();
        _preempted.Clear();
    }

    public void Dispose()
    {
        FailAll(new ObjectDisposedException(typeof(InferenceEngine).FullName));
        _prefixes.Dispose();
        _executor.Dispose();
    }

    private void Publish() => Volatile.Write(ref _status, new SchedulerStatus(
        _running.Count, _preempted.Count, Context.KvCacheUsage, [.. _running.Select(call => new RunningRequest(call.Prompt.Length, call.Results.CachedTokens, call.GeneratedCount, call.CachedCount))], _slots.Status));

    // Every prefix of the KV cache occupies a sequence. A context has 256 sequences if its parameters do not ask for more.
    private static InferenceEngineOptions WithSequencesForPrefixes(InferenceEngineOptions options)
    {
        long sequences = options.SeqMax + (options.PrefixCache.Enabled ? options.PrefixCache.MaxEntries : 0L);
        return sequences <= LeastSequences ? options : options with { SeqMax = checked((uint)sequences) };
    }

    [LoggerMessage(3, LogLevel.Error, "A step failed, and with it the running requests.")]
    private partial void LogStepFailed(Exception exception);

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
        foreach (List<GenerationCall> calls in (List<GenerationCall>[])[_running, _preempted])
        {
            foreach (GenerationCall call in calls.FindAll(call => call.IsAbandoned))
            {
                calls.Remove(call);
                _slots.Release(call, []);
                Cancel(call);
            }
        }
    }

    private void Restore()
    {
        while (_preempted.Count > 0 && _running.Count < _options.SeqMax && HasRoom(_preempted[0]))
        {
            GenerationCall call = _preempted[0];
            call.Conversation = _executor.Load(call.Spilled!);
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
        foreach (GenerationCall call in _running.Where(call => call.IsDecoding).Take(left))
        {
            call.Conversation!.Prompt((LLamaToken)call.Tokens[^1]);
            streams++;
        }

        long room = _running.TrueForAll(call => call.IsDecoding) ? 0 : Math.Min(FreeTokens(left) - streams, Math.Min(left - streams, _budget.For(streams)));
        int promptTokens = 0;
        foreach (GenerationCall call in _running.Where(call => !call.IsDecoding))
        {
            int end = call.Marks.TryPeek(out int mark) ? mark : call.Tokens.Count;
            int count = (int)Math.Min(end - call.CachedCount, room - promptTokens);
            if (count <= 0)
            {
                break;
            }

            LLamaToken[] tokens = [.. call.Tokens.GetRange(call.CachedCount, count).Select(token => (LLamaToken)token)];
            call.Conversation!.Prompt(tokens.AsSpan());
            promptTokens += count;
        }

        return (streams, promptTokens);
    }

    private void KeepMarks()
    {
        foreach (GenerationCall call in _running)
        {
            if (call.Marks.TryPeek(out int mark) && call.CachedCount >= mark)
            {
                call.Marks.Dequeue();
                if (call.CachedCount == mark)
                {
                    _prefixes.Add(call.Prompt.AsSpan(0, mark), call.PrefixKey, call.Conversation!.Fork);
                }
            }
        }
    }

    private void Sample()
    {
        foreach (GenerationCall call in _running.Where(call => call.UncachedCount == 0))
        {
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
                call.Fail(e);  // of its own pipeline; the other calls continue
            }
        }
    }

    private void RemoveComplete()
    {
        foreach (GenerationCall call in _running.FindAll(call => call.IsComplete))
        {
            _running.Remove(call);
            int[] kept = [];
            if (call.Results.StopReason != StopReason.None && call.Conversation is { } conversation && call.CachedCount > 0)
            {
                // The next turn of the conversation begins with these tokens. The prefix cache takes the sequence over.
                int[] tokens = [.. call.Tokens.Take(call.CachedCount)];
                kept = _prefixes.Add(tokens, call.PrefixKey, () =>
                {
                    call.Conversation = null;
                    return conversation;
                }) ? tokens : [];
            }

            _slots.Release(call, kept);
            call.Dispose();
            _metrics.Ended(call);
        }
    }
}
