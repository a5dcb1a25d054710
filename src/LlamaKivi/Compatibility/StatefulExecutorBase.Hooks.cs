using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

// Steps of a call that LLamaSharp programs override. Classes that override none of them, such as those of this library, do not run them.
// The context is not locked between steps, so a step of a derived class can call its public methods.
public abstract partial class StatefulExecutorBase
{
    private Prompt? _whole;  // a conversation that was tokenized and not decoded

    /// <summary>Logger of context events.</summary>
    protected ILogger? _logger { get => field ?? Logger; set; }

    /// <summary>Tokens in the cache.</summary>
    protected int _pastTokensCount { get; set; }

    /// <summary>Number of tokens of <see cref="_embed_inps"/> that were decoded.</summary>
    protected int _consumedTokensCount { get; set; }

    /// <summary>Tokens of the step, sampled by <see cref="InferInternal"/>.</summary>
    protected List<LLamaToken> _embeds { get => field ??= []; set; }

    /// <summary>Tokens of all input texts.</summary>
    protected List<LLamaToken> _embed_inps { get => field ??= []; set; }

    /// <summary>The last tokens of the text, up to the context size.</summary>
    protected FixedSizeQueue<LLamaToken> _last_n_tokens { get => field ??= new FixedSizeQueue<LLamaToken>(checked((int)Context.ContextSize)); set; }

    /// <summary>Detects antiprompts in the text.</summary>
    protected AntipromptProcessor AntipromptProcessor => field ??= new AntipromptProcessor();

    // A delegate to a virtual method names the override; unlike a search by name, this is safe to trim.
    private bool HasHooks => GetType().Assembly != typeof(StatefulExecutorBase).Assembly
        && ((Delegate[])[PreprocessInputs, GetLoopCondition, InferInternal, PostProcess]).Any(hook => hook.Method.DeclaringType?.Assembly != typeof(StatefulExecutorBase).Assembly);

    /// <summary>Tokenizes an input text and appends its tokens to <see cref="_embed_inps"/>.</summary>
    /// <param name="text">The text; null: the call continues where the last one ended.</param>
    /// <param name="args">State of the call.</param>
    /// <param name="cancellationToken">Cancels the step.</param>
    protected virtual Task PreprocessInputs(string? text, InferStateArgs args, CancellationToken cancellationToken = default)
    {
        if (text is null && IsPromptRun)
        {
            throw new ArgumentException("There is no text to continue: the first one must not be null.", nameof(text));
        }

        if (text is not null)
        {
            using ContextTurn turn = TakeTurn(nameof(InferAsync));
            Prompt prompt = TakePrompt(turn, text);
            _whole = prompt.IsWhole ? prompt : null;
            if (prompt.IsWhole)
            {
                _embed_inps.Clear();
                _consumedTokensCount = 0;
            }

            _embed_inps.AddRange(prompt.Tokens.Select(token => (LLamaToken)token));
        }

        return Task.CompletedTask;
    }

    /// <summary>Whether another step follows: input is not decoded yet, or the answer continues.</summary>
    protected virtual Task<bool> GetLoopCondition(InferStateArgs args, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(args);
        return Task.FromResult(_consumedTokensCount < _embed_inps.Count || (args.RemainedTokens != 0 && !args.WaitForInput));
    }

    /// <summary>Decodes the remaining input, and samples a token into <see cref="_embeds"/> unless the executor waits for input.</summary>
    /// <param name="inferenceParams">Parameters of the inference.</param>
    /// <param name="args">State of the call.</param>
    /// <param name="cancellationToken">Cancels the step.</param>
    protected virtual async Task InferInternal(IInferenceParams inferenceParams, InferStateArgs args, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(inferenceParams);
        ArgumentNullException.ThrowIfNull(args);
        using ContextTurn turn = TakeTurn(nameof(InferAsync));
        args.ReturnValue = false;
        _embeds = [];
        bool hasRead = _consumedTokensCount < _embed_inps.Count;
        if (hasRead)
        {
            int[] unread = [.. _embed_inps.Skip(_consumedTokensCount).Select(token => (int)token)];
            Prompt prompt = _whole ?? Prompt.Next(unread);
            _whole = null;
            try
            {
                await TakeSessionAsync(turn, unread).ConfigureAwait(false);
                await Generation.PrefillAsync(turn, prompt, inferenceParams, cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                // The text is unchanged.
                _embed_inps.RemoveRange(_consumedTokensCount, unread.Length);
                throw;
            }

            foreach (int token in unread)
            {
                _last_n_tokens.Enqueue(token);
            }

            _consumedTokensCount = _embed_inps.Count;
        }

        if (!args.WaitForInput && args.RemainedTokens != 0)
        {
            LLamaToken token = await Task.Run(() => Generation.Step(turn, inferenceParams, hasRead, cancellationToken), cancellationToken).ConfigureAwait(false);
            _embeds = [token];
            _last_n_tokens.Enqueue(token);
            args.RemainedTokens--;
            args.ReturnValue = !Context.Weights.Tokenizer.IsEndOfGeneration((int)token);
        }

        _pastTokensCount = Generation.Text.CachedCount;
    }

    /// <summary>Processes the output of a step.</summary>
    /// <returns>Whether the answer ends, and the text to append to the stream.</returns>
    protected virtual Task<(bool, IReadOnlyList<string>)> PostProcess(IInferenceParams inferenceParams, InferStateArgs args, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(args);
        bool isEnd = _embeds.Count > 0 && Context.Weights.Tokenizer.IsEndOfGeneration((int)_embeds[^1]);
        bool isStopped = args.LastOutput.Length > 0 && AntipromptProcessor.Add(args.LastOutput);
        args.WaitForInput |= isEnd || isStopped || args.RemainedTokens == 0;
        IReadOnlyList<string> added = args.WaitForInput && !isStopped && EndMark.Length > 0 ? [EndMark] : [];
        return Task.FromResult((args.WaitForInput, added));
    }

    /// <summary>Makes room in a full context for a class that decodes tokens itself: evicts the oldest tokens after the kept ones and shifts the rest down.</summary>
    /// <param name="tokensToKeep">Number of tokens to keep at the start.</param>
    /// <param name="inferenceParams">Overflow strategy and fraction of tokens to drop.</param>
    /// <exception cref="ContextOverflowException">No token may be dropped.</exception>
    protected virtual Task HandleRunOutOfContext(int tokensToKeep, IInferenceParams inferenceParams)
    {
        ArgumentNullException.ThrowIfNull(inferenceParams);
        int keep = Math.Clamp(tokensToKeep, 0, _pastTokensCount);
        if (inferenceParams.OverflowStrategy == ContextOverflowStrategy.ThrowException || keep == _pastTokensCount)
        {
            throw new ContextOverflowException($"The context is full: {_pastTokensCount} of {Context.ContextSize} tokens used, {keep} to keep. Raise ContextSize, or set OverflowStrategy to {nameof(ContextOverflowStrategy.Shift)}.");
        }

        int drop = Math.Clamp((int)Math.Ceiling((_pastTokensCount - keep) * inferenceParams.ContextTruncationPercentage), 1, _pastTokensCount - keep);
        using ContextCall call = Enter();
        Context.Handle.SeqRemove(0, keep, keep + drop);
        _pastTokensCount -= drop;
        return Task.CompletedTask;
    }

    private partial IAsyncEnumerable<string>? RunHooks(InferenceResults results, string? text, IInferenceParams options, CancellationToken cancellationToken) =>
        HasHooks ? RunStepsAsync(results, text, Complete(options), cancellationToken) : null;

    private async partial Task<bool> TryPrefillByHooksAsync(string prompt, CancellationToken cancellationToken)
    {
        if (HasHooks)
        {
            await PrefillByStepsAsync(prompt, cancellationToken).ConfigureAwait(false);
        }

        return HasHooks;
    }

    private async IAsyncEnumerable<string> RunStepsAsync(
        InferenceResults results, string? text, IInferenceParams options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var args = new InferStateArgs { Antiprompts = [.. options.AntiPrompts ?? []], RemainedTokens = options.MaxTokens };
        AntipromptProcessor.SetAntiprompts(args.Antiprompts);
        Generation.Start(results);
        await PreprocessInputs(text, args, cancellationToken).ConfigureAwait(false);
        var decoder = new StreamingTokenDecoder(Context.Weights.Tokenizer) { DecodeSpecialTokens = options.DecodeSpecialTokens };
        (bool isEnd, bool hasWritten) = (false, false);
        while (!isEnd && await GetLoopCondition(args, cancellationToken).ConfigureAwait(false))
        {
            args.LastOutput = "";
            if (hasWritten && cancellationToken.IsCancellationRequested)
            {
                results.StopReason = StopReason.Cancelled;
                yield break;
            }

            try
            {
                await InferInternal(options, args, cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested && hasWritten)
            {
                results.StopReason = StopReason.Cancelled;
                yield break;
            }

            hasWritten |= args.ReturnValue;
            if (args.ReturnValue)
            {
                decoder.AddRange<List<LLamaToken>>(_embeds);
                args.LastOutput = decoder.Read();
                if (args.LastOutput.Length > 0)
                {
                    yield return args.LastOutput;
                }
            }

            (isEnd, IReadOnlyList<string> added) = await PostProcess(options, args, cancellationToken).ConfigureAwait(false);
            foreach (string piece in added ?? [])
            {
                yield return piece;
            }
        }

        results.StopReason = args.RemainedTokens == 0 ? StopReason.MaxTokens
            : _embeds.Count > 0 && Context.Weights.Tokenizer.IsEndOfGeneration((int)_embeds[^1]) ? StopReason.EndOfGeneration
            : StopReason.AntiPrompt;
    }

    // Runs steps until the whole text is tokenized, then one that decodes the rest.
    private async Task PrefillByStepsAsync(string prompt, CancellationToken cancellationToken)
    {
        var options = new InferenceParams { MaxTokens = 0 };
        var args = new InferStateArgs { WaitForInput = true };
        await PreprocessInputs(prompt, args, cancellationToken).ConfigureAwait(false);
        int consumed;
        do
        {
            consumed = _consumedTokensCount;
            await InferInternal(options, args, cancellationToken).ConfigureAwait(false);
        }
        while (_consumedTokensCount > consumed);
    }

    /// <summary>State shared by the steps of a call.</summary>
    public class InferStateArgs
    {
        /// <summary>Strings that end the answer.</summary>
        public IList<string>? Antiprompts { get; set; }

        /// <summary>Number of tokens left to generate; negative: no limit.</summary>
        public int RemainedTokens { get; set; }

        /// <summary>Whether the step's tokens are returned to the caller.</summary>
        public bool ReturnValue { get; set; }

        /// <summary>Whether the answer is complete.</summary>
        public bool WaitForInput { get; set; }

        /// <summary>For the steps of derived classes; the library does not read it.</summary>
        public bool NeedToSaveSession { get; set; }

        /// <summary>Text of the last step.</summary>
        public string LastOutput { get; set; } = "";
    }
}
