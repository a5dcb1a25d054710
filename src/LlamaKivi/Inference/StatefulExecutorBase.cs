using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>An executor that works on one growing text: sequence 0 of its context.</summary>
public abstract partial class StatefulExecutorBase : ILLamaExecutor
{
    /// <summary>Works on sequence 0 of a context, which the first text empties.</summary>
    protected StatefulExecutorBase(LLamaContext context, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(context);
        Context = context;
        Generation = new Generation(context, logger);
    }

    /// <inheritdoc/>
    public LLamaContext Context { get; }

    /// <summary>False: the engine runs text models.</summary>
    public bool IsMultiModal => false;

    /// <summary>How long the last inference took; <see cref="InferenceStream.Timings"/> of what <see cref="InferAsync"/> returned says it of that one.</summary>
    public InferenceTimings Timings => Generation.Timings;

    /// <summary>Why the last inference ended; <see cref="InferenceStream.StopReason"/> of what <see cref="InferAsync"/> returned says it of that one.</summary>
    public StopReason StopReason => Generation.StopReason;

    /// <summary>Tokens the last inference wrote.</summary>
    public IReadOnlyList<int> GeneratedTokens => Generation.Generated;

    internal Generation Generation { get; }

    // Whether no text was read yet.
    internal bool IsPromptRun => Generation.Text.IsEmpty;

    /// <summary>Reads a text and streams its continuation; null: goes on where the last one ended.</summary>
    /// <remarks>
    /// From its first token until it ends or is disposed of, the stream has the context: what would change it meanwhile throws <see cref="ContextBusyException"/>.
    /// Cancelled while it writes, it ends, as LLamaSharp's does: <see cref="StopReason"/> tells. The next call goes on from what was written.
    /// </remarks>
    /// <exception cref="ContextBusyException">Something else uses the context.</exception>
    /// <exception cref="ObjectDisposedException">The context was disposed of, also in the middle of the text.</exception>
    /// <exception cref="ArgumentException">There is nothing to go on from.</exception>
    /// <exception cref="InvalidOperationException">Another call uses the sampling pipeline.</exception>
    /// <exception cref="OperationCanceledException">Cancelled before anything was written; the text is as before.</exception>
    public virtual InferenceStream InferAsync(string? text, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        new(Context, call => RunAsync(call, text, inferenceParams, cancellationToken));

    private async IAsyncEnumerable<string> RunAsync(
        InferenceStream call, string? text, IInferenceParams? inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using ContextTurn turn = TakeTurn(nameof(InferAsync));
        if (text is null && IsPromptRun)
        {
            throw new ArgumentException("There is no text to continue: the first one must not be null.", nameof(text));
        }

        IInferenceParams options = inferenceParams ?? new InferenceParams();
        Prompt prompt = TakePrompt(turn, text);
        await TakeSessionAsync(turn, prompt.Tokens).ConfigureAwait(false);
        IAsyncEnumerator<string> pieces = Generation.RunAsync(turn, call.Results, prompt, Complete(options), cancellationToken).GetAsyncEnumerator(cancellationToken);
        await using ConfiguredAsyncDisposable ending = pieces.ConfigureAwait(false);
        while (true)
        {
            try
            {
                if (!await pieces.MoveNextAsync().ConfigureAwait(false))
                {
                    break;
                }
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested && Generation.GeneratedCount > 0)
            {
                call.Results.StopReason = StopReason.Cancelled;
                break;
            }

            yield return pieces.Current;
        }

        if (EndMark.Length > 0 && call.StopReason is (StopReason.EndOfGeneration or StopReason.MaxTokens or StopReason.ContextFull))
        {
            yield return EndMark;
        }
    }

    /// <inheritdoc/>
    IAsyncEnumerable<string> ILLamaExecutor.InferAsync(string text, IInferenceParams? inferenceParams, CancellationToken token) =>
        InferAsync(text, inferenceParams, token);

    /// <summary>Reads a text into the cache and writes nothing.</summary>
    /// <exception cref="ContextBusyException">Something else uses the context.</exception>
    public virtual async Task PrefillPromptAsync(string prompt, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        using ContextTurn turn = TakeTurn();
        await PrefillAsync(turn, Prompt.Next(Prepare(prompt)), cancellationToken).ConfigureAwait(false);
    }

    private async Task PrefillAsync(ContextTurn turn, Prompt prompt, CancellationToken cancellationToken)
    {
        await TakeSessionAsync(turn, prompt.Tokens).ConfigureAwait(false);
        if (prompt.Tokens.Length > 0)
        {
            await Generation.PrefillAsync(turn, prompt, new InferenceParams(), cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Where the executor is in its text. The cache itself is the context's state.</summary>
    public abstract ExecutorBaseState GetStateData();

    /// <summary>Goes on where a state was taken; the context must hold what it held then.</summary>
    /// <exception cref="ArgumentException">The state is of another kind of executor.</exception>
    /// <exception cref="StateLoadException">The context does not hold what it held then.</exception>
    public abstract Task LoadState(ExecutorBaseState data, CancellationToken cancellationToken = default);

    /// <summary>Writes what <see cref="GetStateData"/> gives as JSON.</summary>
    public virtual Task SaveState(string filename, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        Write(filename, GetStateData());
        return Task.CompletedTask;
    }

    /// <summary>Reads what <see cref="SaveState"/> wrote.</summary>
    /// <exception cref="StateLoadException">The file is something else, or the context does not hold what it held then.</exception>
    public virtual Task LoadState(string filename, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return StateFile.ReadAsync(filename, async () =>
        {
            ExecutorBaseState state = Read(filename);
            try
            {
                await LoadState(state, cancellationToken).ConfigureAwait(false);
            }
            catch (ArgumentException e)
            {
                throw new StateLoadException(e.Message.Split(" (Parameter '")[0]);  // here it is the file that is of another kind
            }
        });
    }

    /// <summary>What the reader is shown after an answer that no antiprompt ended; empty: nothing.</summary>
    private protected virtual string EndMark => "";

    /// <summary>The tokens to read for a text.</summary>
    private protected abstract int[] Prepare(string text);

    /// <summary>The parameters to use for those given.</summary>
    private protected virtual IInferenceParams Complete(IInferenceParams options) => options;

    // An operation of many calls.
    private ContextTurn TakeTurn([CallerMemberName] string method = "") => Context.Handle.TakeTurn($"{GetType().Name}.{method}");

    // What changes the executor or its sequence is a call on the context.
    private protected ContextCall Enter([CallerMemberName] string method = "") => Context.Handle.Enter($"{GetType().Name}.{method}");

    // What reads the executor's text: a step of a stream on another thread may be changing it.
    private protected ContextCall Look([CallerMemberName] string method = "") => Context.Handle.Look($"{GetType().Name}.{method}");
}
