using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Hosting;

// A request's way: into the queue, from there to the scheduler when it has room, and out.
public sealed partial class InferenceEngine
{
    private async Task ServeAsync(CancellationToken stoppingToken)
    {
        while (!stoppingToken.IsCancellationRequested)
        {
            if (_drainEnded)
            {
                _scheduler!.FailAll(Stopping());
            }

            RunPending();
            StartWaiting();
            if (!_scheduler!.HasWork)
            {
                RecordIdle();
                await _work.WaitAsync(stoppingToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                continue;
            }

            await _scheduler.StepAsync().ConfigureAwait(false);
            _lastStep = Stopwatch.GetTimestamp();
        }
    }

    private void StartWaiting()
    {
        while (true)
        {
            GenerationCall? first;
            lock (_gate)
            {
                first = _waiting.First?.Value;
                if (first is null)
                {
                    return;
                }

                _lastStep = _lastStep == 0 ? Stopwatch.GetTimestamp() : _lastStep;
            }

            bool isAbandoned = first.IsAbandoned;
            bool canStart = !isAbandoned && _scheduler!.CanStart(first);
            if (!canStart && !isAbandoned && _scheduler!.HasWork)
            {
                return;
            }

            lock (_gate)
            {
                if (!_waiting.Remove(first))
                {
                    first.ReleasePrefix();
                    continue;  // refused in between
                }
            }

            if (isAbandoned)
            {
                _scheduler!.Cancel(first);
            }
            else if (canStart)
            {
                _scheduler!.Start(first);
            }
            else
            {
                // Nothing runs that could make room.
                _scheduler!.Refuse(first, new ContextOverflowException(
                    $"The prompt has {first.Prompt.Length} tokens, for which the empty cache of {_scheduler.ContextSize} tokens has no room. Shorten the prompt, or raise ContextSize."));
            }
        }
    }

    private async IAsyncEnumerable<string> RunAsync(
        InferenceStream stream, Func<LLamaWeights, int[]> encode, IInferenceParams options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        LLamaWeights weights = await WaitForModelAsync(cancellationToken).ConfigureAwait(false);
        var call = new GenerationCall(weights, encode(weights), options, stream.Results, cancellationToken) { PrefixKey = PrefixKey(options), Trace = CallTrace.Start(options, ModelName!) };
        try
        {
            Submit(call);
        }
        catch (Exception e)
        {
            call.Fail(e);
            call.Dispose();
            throw;
        }

        try
        {
            await foreach (string piece in call.Output.ReadAllAsync(cancellationToken).ConfigureAwait(false))
            {
                yield return piece;
            }
        }
        finally
        {
            call.Abandon();
            if (LeaveQueue(call))
            {
                _scheduler!.Cancel(call);
            }
            else
            {
                Wake();
            }
        }
    }

    // A hash, because keys may be secrets and the disk tier writes them.
    private string PrefixKey(IInferenceParams options) => _options.PrefixCache.Isolation && options is InferenceParams { PrefixKey: { Length: > 0 } key }
        ? Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(key)))
        : "";

    // The queue's limit holds while the model loads, too.
    private async Task<LLamaWeights> WaitForModelAsync(CancellationToken cancellationToken)
    {
        if (_loaded.Task.IsCompleted)
        {
            return await WaitUntilReadyAsync(cancellationToken).ConfigureAwait(false);
        }

        if (Interlocked.Increment(ref _waitingForModel) > _options.MaxWaiting + (long)_options.SeqMax)
        {
            Interlocked.Decrement(ref _waitingForModel);
            throw new EngineBusyException(
                $"The model is loading and {_options.MaxWaiting + (long)_options.SeqMax} requests wait for it, the most that MaxWaiting and SeqMax allow. Retry later.", TimeSpan.FromSeconds(5));
        }

        try
        {
            return await WaitUntilReadyAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _waitingForModel);
        }
    }

    private void Submit(GenerationCall call)
    {
        if (call.Prompt.Length == 0)
        {
            throw new ArgumentException("The prompt is empty.", nameof(call));
        }

        lock (_gate)
        {
            CheckLength(call.Prompt.Length);

            // Requests that find a free sequence do not wait, but pass through the queue too.
            long free = Math.Max(0, _options.SeqMax - (_scheduler!.Status.Running + (long)_scheduler.Status.Preempted));
            if (_waiting.Count >= _options.MaxWaiting + free)
            {
                throw new EngineBusyException(
                    $"{_waiting.Count - free} requests are waiting, the most that MaxWaiting allows. Retry later, or raise MaxWaiting or SeqMax.",
                    TimeSpan.FromSeconds(Math.Max(1, Math.Ceiling(_secondsPerCall))));
            }

            call.Ended = Record;
            _waiting.AddLast(call);
        }

        Wake();
    }

    /// <summary>Refuses a prompt that is too long for the empty cache. The model must be loaded.</summary>
    /// <exception cref="ContextOverflowException">The prompt is too long.</exception>
    internal void CheckLength(PromptText prompt)
    {
        // A token has at least one byte, except BOS and a space that the tokenizer adds: most prompts are not encoded twice.
        if (!CanHold(Encoding.UTF8.GetByteCount(prompt.Value) + 2, out _))
        {
            CheckLength(Encode(LoadedWeights!.Tokenizer, prompt).Length);
        }
    }

    // Encoding megabytes takes seconds and cannot be cancelled: no prompt has fewer tokens than its bytes fill.
    private int[] Encode(Tokenizer tokenizer, PromptText prompt)
    {
        CheckLength(Encoding.UTF8.GetByteCount(prompt.Value) / tokenizer.LongestToken, "at least ");
        return tokenizer.Encode(prompt, tokenizer.AddBos);
    }

    private void CheckLength(int tokens, string about = "")
    {
        if (!CanHold(tokens, out string reason))
        {
            throw new ContextOverflowException($"The prompt has {about}{tokens} tokens; {reason}");
        }
    }

    private bool CanHold(int prompt, out string reason)
    {
        lock (_gate)
        {
            return _state == EngineState.Ready ? _scheduler!.CanHold(prompt + 1, out reason) : throw Stopping();
        }
    }

    private void Record(TimeSpan time)
    {
        lock (_gate)
        {
            _secondsPerCall = _secondsPerCall == 0 ? time.TotalSeconds : (0.9 * _secondsPerCall) + (0.1 * time.TotalSeconds);
        }
    }

    private bool LeaveQueue(GenerationCall call)
    {
        lock (_gate)
        {
            return _waiting.Remove(call);
        }
    }

    private void RefuseWaiting(Exception error)
    {
        lock (_gate)
        {
            foreach (GenerationCall call in _waiting)
            {
                _scheduler!.Refuse(call, error);
            }

            _waiting.Clear();
        }
    }

    private void Wake()
    {
        try
        {
            _work.Release();
        }
        catch (SemaphoreFullException)
        {
            // The engine is awake already.
        }
    }
}
