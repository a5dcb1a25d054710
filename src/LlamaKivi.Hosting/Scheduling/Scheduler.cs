using System.Diagnostics;
using LlamaKivi.Batched;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>Runs calls on one context, step by step: continuous batching with chunked prefill, preemption and a prefix cache.</summary>
/// <remarks>
/// The engine starts waiting calls before a step, while the cache has room and no preempted call waits for it. A step: 1. removes abandoned calls, 2. restores preempted ones, 3. plans the batch:
/// a token of every running stream, then prompt tokens in order of admission, 4. decodes it, 5. samples every sequence whose tokens are all cached. Used by one thread at a time.
/// </remarks>
internal sealed partial class Scheduler : IDisposable
{
    private readonly BatchedExecutor _executor;
    private readonly InferenceEngineOptions _options;
    private readonly EngineMetrics _metrics;
    private readonly ILogger _logger;
    private readonly PrefillBudget _budget;
    private readonly CacheRoom _room;
    private readonly PrefixCache _prefixes;
    private readonly List<GenerationCall> _running = [];    // in order of admission
    private readonly List<GenerationCall> _preempted = [];  // oldest first

    private const uint LeastSequences = 256;

    private SchedulerStatus _status;
    private GenerationCall? _tooLarge;  // the waiting call that had no room, until room may have become free

    public Scheduler(LLamaWeights weights, InferenceEngineOptions options, EngineMetrics metrics, ILogger logger)
    {
        _options = options;
        _metrics = metrics;
        _logger = logger;
        _executor = new BatchedExecutor(weights, WithSequencesForPrefixes(options));
        ContextSize = Context.ContextSize;
        _budget = new PrefillBudget(checked((int)_executor.Context.BatchSize));
        _identity = new(() => PrefixFiles.Identity(weights, options));
        _room = new CacheRoom(_executor, options);
        _prefixes = new PrefixCache(_executor, options.PrefixCache, _running, _budget, metrics, _identity, logger);
        _slots = new EngineSlots(checked((int)options.SeqMax));
        _status = new SchedulerStatus(0, 0, Context.KvCacheUsage, ContextSize, _slots.Status);
    }

    public LLamaContext Context => _executor.Context;

    /// <summary>Capacity of the cache in tokens; readable after disposal.</summary>
    public uint ContextSize { get; }

    /// <summary>Counts after the last step, readable from any thread: running calls, preempted calls, and the cache, which cannot be read during a step.</summary>
    public SchedulerStatus Status => Volatile.Read(ref _status);

    /// <summary>The prefix cache.</summary>
    public PrefixCache Prefixes => _prefixes;

    public bool HasWork => _running.Count + _preempted.Count > 0;

    /// <summary>Whether a sequence of this many tokens fits in the empty cache; if not, the reason. Thread-safe.</summary>
    public bool CanHold(int tokens, out string reason) => _room.CanHold(tokens, out reason);

    /// <summary>Whether a waiting call can start now.</summary>
    public bool CanStart(GenerationCall call)
    {
        if (call == _tooLarge || _preempted.Count > 0 || _running.Count >= _options.SeqMax)
        {
            return false;
        }

        bool hasRoom = HasRoom(call);
        _tooLarge = hasRoom ? null : call;
        return hasRoom;
    }

    /// <summary>Starts a waiting call.</summary>
    public void Start(GenerationCall call)
    {
        try
        {
            call.Begin();
            Continue(call, call.Prefix ?? _prefixes.Find(call.Prompt, call.PrefixKey));
            _metrics.Admitted(call.Results.CachedTokens, call.Prompt.Length);
            foreach (int position in _prefixes.Positions(call, _executor.Context.Weights.Tokenizer.IsEndOfGeneration))
            {
                call.Positions.Enqueue(position);
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

    // Starts the call's sequence, with the prefix that was found for it.
    private void Continue(GenerationCall call, PrefixHit? prefix)
    {
        if (prefix is null)
        {
            (call.Conversation, call.Family) = (_executor.Create(), _prefixes.NextFamily());
            return;
        }

        (call.Conversation, call.CachedCount, call.Prefix) = (prefix.Conversation, prefix.Count, null);
        (call.Results.CachedTokens, call.Copied, call.Family) = (prefix.Count, prefix.Copied, prefix.Family);
        call.Marks.AddRange(prefix.Marks);
        _prefixes.Mark(call);
        _metrics.Hit(prefix.Tier);
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

        long decode = Stopwatch.GetTimestamp();  // the plan may have evicted and preempted: that is no cost of its tokens
        DecodeResult result = await _executor.Infer(CancellationToken.None).ConfigureAwait(false);
        if (result != DecodeResult.Ok)
        {
            throw new UnreachableException($"The cache refused a batch of {streams + promptTokens} tokens that it has room for: {result}.");
        }

        if (_running.Find(static call => call.Conversation!.RequiresInference) is { } left)
        {
            throw new UnreachableException($"The cache has no room for a request of {left.Prompt.Length} tokens, although the estimate said that it has.");
        }

        _budget.Record(streams, promptTokens, Stopwatch.GetElapsedTime(decode).TotalSeconds);
        foreach (GenerationCall call in _running)
        {
            call.CachedCount = call.Conversation!.TokenCount;
        }

        SetMarks();
        Sample();
        RemoveComplete();
        _metrics.Stepped(streams, promptTokens, Stopwatch.GetElapsedTime(start));
    }

    /// <summary>Ends all calls with an error.</summary>
    public void FailAll(Exception error)
    {
        _tooLarge = null;
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

    private void Publish() => Volatile.Write(ref _status, new SchedulerStatus(_running.Count, _preempted.Count, Context.KvCacheUsage, FreeTokens(), _slots.Status));

    // Every prefix of the KV cache occupies a sequence. A context has 256 sequences if its parameters do not ask for more.
    private static InferenceEngineOptions WithSequencesForPrefixes(InferenceEngineOptions options)
    {
        long sequences = options.SeqMax + (options.PrefixCache.Enabled ? options.PrefixCache.MaxEntries : 0L);
        return sequences <= LeastSequences ? options : options with { SeqMax = checked((uint)sequences) };
    }

    [LoggerMessage(3, LogLevel.Error, "A step failed, and with it the running requests.")]
    private partial void LogStepFailed(Exception exception);
}
