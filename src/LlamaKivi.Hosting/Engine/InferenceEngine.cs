using System.Diagnostics;
using System.Diagnostics.Metrics;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>A hosted service that runs many requests at once on one model and one context.</summary>
/// <remarks>
/// Requests wait in a bounded queue until the cache has room for their prompt, then share the batch of every step. All members are thread-safe.
/// The model loads when the host starts; until then requests wait.
/// </remarks>
public sealed partial class InferenceEngine : BackgroundService
{
    private const uint MostEmbeddingTokens = 8192;

    private readonly InferenceEngineOptions _options;
    private readonly ILogger _logger;
    private readonly EngineMetrics _metrics;
    private readonly EngineContexts<LLamaEmbedder> _embedder;
    private readonly EngineContexts<LLamaReranker> _reranker;
    private readonly TaskCompletionSource<LLamaWeights> _loaded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _gate = new();
    private readonly LinkedList<GenerationCall> _waiting = new();
    private readonly SemaphoreSlim _work = new(0, 1);
    private Scheduler? _scheduler;
    private EngineState _state = EngineState.Loading;
    private long _lastStep;  // timestamp; 0: no work
    private double _secondsPerCall;  // average time that a call occupies its sequence
    private int _waitingForModel;  // requests that wait until the model is loaded

    /// <summary>Creates an engine, which starts with its host.</summary>
    /// <param name="options">Options; read at the start.</param>
    /// <param name="logger">Logger; null: none.</param>
    /// <param name="meterFactory">Creates the meter; null: a meter of the process.</param>
    /// <exception cref="ArgumentException">An option is out of range; the message names it and the allowed values.</exception>
    public InferenceEngine(InferenceEngineOptions options, ILogger<InferenceEngine>? logger = null, IMeterFactory? meterFactory = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        if (InferenceEngineOptionsValidator.Errors(options).FirstOrDefault() is { } error)
        {
            throw new ArgumentException(error, nameof(options));
        }

        _options = options;
        Draining = _draining.Token;
        _logger = logger ?? Microsoft.Extensions.Logging.Abstractions.NullLogger<InferenceEngine>.Instance;
        _metrics = new EngineMetrics(meterFactory);
        _embedder = new EngineContexts<LLamaEmbedder>(this, weights => new LLamaEmbedder(weights, ForEmbeddings(weights), _logger));
        _reranker = new EngineContexts<LLamaReranker>(this, weights => new LLamaReranker(weights, ForEmbeddings(weights), _logger));
    }

    /// <summary>Waits until the model is loaded.</summary>
    /// <returns>The model, which belongs to the engine.</returns>
    /// <exception cref="RuntimeError">The model cannot be loaded; the exception says why.</exception>
    /// <exception cref="EngineBusyException">The engine is stopping.</exception>
    public Task<LLamaWeights> WaitUntilReadyAsync(CancellationToken cancellationToken = default) => _loaded.Task.WaitAsync(cancellationToken);

    /// <summary>The engine's state, requests and cache use.</summary>
    public EngineStatus Status
    {
        get
        {
            lock (_gate)
            {
                SchedulerStatus? now = _state is EngineState.Ready or EngineState.Draining ? _scheduler?.Status : null;
                Native.CacheUsage usage = now?.Usage ?? default;
                TimeSpan? lastStep = _lastStep == 0 ? null : Stopwatch.GetElapsedTime(_lastStep);
                return new EngineStatus(_state, _waiting.Count, now?.Running ?? 0, now?.Preempted ?? 0, usage.Tokens, usage.Capacity,
                    usage.QuantizedBytes, usage.ExactBytes, usage.F16Bytes, lastStep)
                {
                    CacheFree = now?.Free ?? 0,
                };
            }
        }
    }

    /// <summary>Why the model could not be loaded; null: loading has not failed.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>Name of the model in its file; null: not loaded.</summary>
    public string? ModelName { get; private set; }

    /// <summary>Name that clients use for the model; null: the model's own. Metrics have both names, because several files can contain the same model name.</summary>
    internal string? ServedAs { get; init; }

    /// <summary>Whether the engine has completed no step for <see cref="InferenceEngineOptions.StallTimeout"/> while requests were running.</summary>
    public bool IsStalled => Status.LastStep is { } time && time > _options.StallTimeout;

    /// <summary>Streams the continuation of a text.</summary>
    /// <param name="prompt">The text. Special tokens spelled out in it are parsed.</param>
    /// <param name="inferenceParams">Inference parameters; null: defaults. No other request may use the sampling pipeline at the same time.</param>
    /// <param name="cancellationToken">Cancels the request within one step.</param>
    /// <returns>Pieces of text; no piece ends inside a character.</returns>
    /// <exception cref="EngineBusyException">While enumerating: the queue is full, or the engine is stopping.</exception>
    /// <exception cref="ContextOverflowException">While enumerating: the prompt is longer than the cache.</exception>
    public InferenceStream InferAsync(string prompt, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        return InferAsync(new PromptText(prompt), inferenceParams ?? new InferenceParams(), cancellationToken);
    }

    /// <summary>Creates a chat client of the engine. Its calls run concurrently.</summary>
    /// <param name="options">Options of the client; null: defaults.</param>
    public IChatClient AsChatClient(ChatClientOptions? options = null) => new GeneratorChatClient(new EngineGenerator(this), options ?? new ChatClientOptions());

    /// <summary>Creates a generator of embeddings with the engine's model. The engine owns its context of <see cref="InferenceEngineOptions.EmbeddingContextSize"/> tokens.</summary>
    public IEmbeddingGenerator<string, Embedding<float>> AsEmbeddingGenerator() => new EngineEmbeddingGenerator(this, _embedder);

    /// <summary>Creates a reranker with the engine's model, which must have a reranking head. The engine owns its context.</summary>
    public EngineReranker AsReranker() => new(_reranker);

    /// <summary>Embeds a text, or token ids unchanged.</summary>
    /// <param name="input">A string, or an array of token ids.</param>
    /// <param name="cancellationToken">Cancels the computation.</param>
    /// <returns>The embedding, and the number of tokens.</returns>
    internal Task<(float[] Embedding, int Tokens)> EmbedAsync(object input, CancellationToken cancellationToken) =>
        _embedder.UseAsync(
            async embedder =>
            {
                int[] tokens = input as int[] ?? embedder.Encode((string)input);
                return (await embedder.GetEmbedding(tokens, cancellationToken).ConfigureAwait(false), tokens.Length);
            },
            cancellationToken);

    /// <summary>The model; null: not loaded.</summary>
    internal LLamaWeights? LoadedWeights { get; private set; }

    /// <summary>The engine's options.</summary>
    internal InferenceEngineOptions Options => _options;

    /// <summary>Counts since the start.</summary>
    internal EngineTotals Totals => _metrics.Totals;

    /// <summary>The prefix cache, for the engine's loop only. Null: the model is not loaded.</summary>
    internal PrefixCache? Prefixes => _scheduler?.Prefixes;

    /// <summary>The slots of the running requests after the last step, in order of admission.</summary>
    internal IReadOnlyList<SlotStatus> Requests => Status.State is EngineState.Ready or EngineState.Draining ? _scheduler?.Status.Requests ?? [] : [];

    internal InferenceStream InferAsync(PromptText prompt, IInferenceParams inferenceParams, CancellationToken cancellationToken) =>
        new(null, stream => RunAsync(stream, weights => Encode(weights.Tokenizer, prompt), inferenceParams, cancellationToken));

    /// <summary>Streams the continuation of tokens.</summary>
    internal InferenceStream InferAsync(int[] prompt, IInferenceParams inferenceParams, CancellationToken cancellationToken) =>
        new(null, stream => RunAsync(stream, _ => prompt, inferenceParams, cancellationToken));

    /// <summary>Stops the engine: running requests have <see cref="InferenceEngineOptions.DrainTimeout"/> to finish, waiting ones are refused.</summary>
    /// <param name="cancellationToken">Ends the wait.</param>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await DrainAsync(cancellationToken).ConfigureAwait(false);
        await base.StopAsync(cancellationToken).ConfigureAwait(false);
        if (ExecuteTask is null or { IsCompleted: true })
        {
            // It may have ended before its first line.
            lock (_gate)
            {
                _state = _state == EngineState.Failed ? _state : EngineState.Stopped;
            }
        }
    }

    /// <summary>Stops the engine at once and frees the model.</summary>
    public override void Dispose()
    {
        base.Dispose();
        lock (_gate)
        {
            _state = _state == EngineState.Loading ? EngineState.Stopped : _state;
            _drain ??= Task.CompletedTask;
        }

        _loaded.TrySetException(Stopping());
        _draining.Dispose();
        _metrics.Dispose();
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (IsDraining)
        {
            LoadEnded(Stopping(), stopped: true);
            return;
        }

        LLamaWeights? weights = null;
        try
        {
            weights = await LLamaWeights.LoadFromFileAsync(_options, stoppingToken).ConfigureAwait(false);
            _scheduler = new Scheduler(weights, _options, _metrics, _logger);
            ModelName = new ChatModel(weights).Names[0];
        }
        catch (Exception e)
        {
            _scheduler?.Dispose();
            weights?.Dispose();
            LoadEnded(e, stoppingToken.IsCancellationRequested);
            return;  // an exception would stop the host, and the other models with it
        }

        using (weights)
        {
            _metrics.Observe(ServedAs ?? ModelName!, ModelName!, () => Status);
            lock (_gate)
            {
                _state = _state == EngineState.Loading ? EngineState.Ready : _state;
            }

            LogReady(_options.ModelPath, _scheduler.ContextSize, _options.SeqMax);
            LoadedWeights = weights;
            _loaded.TrySetResult(weights);
            try
            {
                await ServeAsync(stoppingToken).ConfigureAwait(false);
            }
            finally
            {
                lock (_gate)
                {
                    _state = EngineState.Stopped;
                    _lastStep = 0;
                }

                _scheduler.FailAll(Stopping());
                RefuseWaiting(Stopping());
                _idle.TrySetResult();
                RefusePending(Stopping());
                _embedder.Dispose();
                _reranker.Dispose();
                _scheduler.Dispose();
            }
        }
    }

    private InferenceEngineOptions ForEmbeddings(LLamaWeights weights) => _options with
    {
        ContextSize = _options.EmbeddingContextSize ?? Math.Min(Math.Min(_options.ContextSize ?? MostEmbeddingTokens, MostEmbeddingTokens), (uint)weights.ContextSize),
        SeqMax = 1,
        KvCache = _options.KvCache with { MemoryBudget = null },  // the budget is the engine's context's
    };

    private void LoadEnded(Exception error, bool stopped)
    {
        lock (_gate)
        {
            _state = stopped ? EngineState.Stopped : EngineState.Failed;
            Failure = stopped ? null : error;
        }

        if (!stopped)
        {
            // The message says all that an operator needs, unless the error is unexpected.
            bool isExpected = IsLoadError(error);
            LogLoadFailed(_options.ModelPath, isExpected ? ErrorText.Of(error) : error.GetType().Name, isExpected ? null : error);
        }

        _loaded.TrySetException(stopped ? Stopping() : error);
        _ = _loaded.Task.Exception;  // observed, also if no request waits
    }

    internal static EngineBusyException Stopping() => new("The engine is stopping. Send the request to another instance, or after the restart.", null);

    /// <summary>Whether an error is about the model's file, the options or memory; any other is a fault of the program.</summary>
    internal static bool IsLoadError(Exception error) => error is RuntimeError or IOException or UnauthorizedAccessException or ArgumentException;

    [LoggerMessage(1, LogLevel.Information, "{Model} is ready: {ContextSize} tokens of cache, {Sequences} sequences.")]
    private partial void LogReady(string model, uint contextSize, uint sequences);

    [LoggerMessage(2, LogLevel.Critical, "{Model} cannot be served: {Reason}")]
    private partial void LogLoadFailed(string model, string reason, Exception? exception);
}
