using System.Diagnostics;
using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Reads prompts into one sequence of a context and continues them, token by token.</summary>
internal sealed class Generation(LLamaContext context, ILogger? logger = null)
{
    private InferenceResults _call = new();  // of the last one. Not its stream: nothing here may keep the turn
    private readonly List<int> _generated = [];  // locked: any thread may ask for it

    /// <summary>What was read and written.</summary>
    public CachedText Text { get; } = new(context, logger);

    /// <summary>What was written until now.</summary>
    public int[] Generated
    {
        get
        {
            lock (_generated)
            {
                return [.. _generated];
            }
        }
    }

    public int GeneratedCount => _generated.Count;

    /// <summary>Whether each text has the pipeline forget the one before.</summary>
    public bool ResetsPipeline { get; init; }

    public InferenceTimings Timings => _call.Timings;

    public StopReason StopReason => _call.StopReason;

    /// <summary>Reads tokens into the cache and writes nothing.</summary>
    public Task PrefillAsync(ContextTurn turn, Prompt prompt, IInferenceParams options, CancellationToken cancellationToken)
    {
        int read;
        using (context.Handle.Enter(turn))
        {
            read = Text.Append(prompt, options);
        }

        return ReadAsync(turn, read, prompt.Needed, options, cancellationToken);
    }

    /// <summary>Reads tokens and streams their continuation.</summary>
    /// <remarks>The turn is the caller's, and nothing here keeps it but the enumerator.</remarks>
    /// <exception cref="InvalidOperationException">Another call uses the pipeline; nothing has changed.</exception>
    public async IAsyncEnumerable<string> RunAsync(
        ContextTurn turn, InferenceResults call, Prompt prompt, IInferenceParams options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using PipelineUse pipeline = PipelineUse.Begin(options.SamplingPipeline, ResetsPipeline);
        (int read, int unread) = Begin(turn, call, prompt, options);
        long start = Stopwatch.GetTimestamp();
        await ReadAsync(turn, read, prompt.Needed, options, cancellationToken).ConfigureAwait(false);
        call.Timings = call.Timings with { PromptTokens = unread, PromptSeconds = Stopwatch.GetElapsedTime(start).TotalSeconds };

        var decoder = new StreamingTokenDecoder(context.Weights.Tokenizer) { DecodeSpecialTokens = options.DecodeSpecialTokens };
        var antiprompts = new StopStrings(options.AntiPrompts);
        GoOn(turn, decoder, antiprompts);
        int written = 0;
        using var steps = new StepLoop<int>(() => Next(turn, options, pipeline, cancellationToken));
        while (call.StopReason == StopReason.None)
        {
            if (options.MaxTokens >= 0 && written >= options.MaxTokens)
            {
                call.StopReason = StopReason.MaxTokens;
                break;
            }

            start = Stopwatch.GetTimestamp();
            int token = await steps.RunAsync().ConfigureAwait(false);
            call.Timings = call.Timings with
            {
                GeneratedTokens = ++written,
                DecodeSeconds = call.Timings.DecodeSeconds + Stopwatch.GetElapsedTime(start).TotalSeconds,
            };
            bool ended = context.Weights.Tokenizer.IsEndOfGeneration(token);
            if (!ended)
            {
                decoder.Add(token);  // what ends a text is not written, whatever DecodeSpecialTokens says
            }

            string text = decoder.Read();
            if (ended)
            {
                call.StopReason = StopReason.EndOfGeneration;
            }
            else if (text.Length > 0 && antiprompts.Add(text))
            {
                call.StopReason = StopReason.AntiPrompt;
            }

            if (text.Length > 0)
            {
                yield return text;
            }
        }

        // The bytes of an unfinished character wait for the call that goes on; where the model ended its text there is none to wait for.
        string rest = call.StopReason == StopReason.EndOfGeneration ? decoder.Flush() : "";
        if (rest.Length > 0)
        {
            yield return rest;
        }
    }

    /// <summary>Begins a call that makes its steps itself.</summary>
    public void Start(InferenceResults results)
    {
        results.Timings = default;
        results.StopReason = StopReason.None;
        _call = results;
        lock (_generated)
        {
            _generated.Clear();
        }
    }

    /// <summary>Chooses a token with the pipeline, which goes on as it is, and writes it.</summary>
    /// <param name="turn">The caller's.</param>
    /// <param name="options">How to continue.</param>
    /// <param name="hasLogits">Whether the context's logits are the last token's; otherwise they may be those of another sequence by now.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public int Step(ContextTurn turn, IInferenceParams options, bool hasLogits, CancellationToken cancellationToken)
    {
        if (!hasLogits && Text.UncachedCount == 0)
        {
            using ContextCall call = context.Handle.Enter(turn);
            Text.LeaveLastUnread();
        }

        return Next(turn, options, null, cancellationToken);
    }

    // Gives the tokens of the prompt that are left to be read, and how many that makes with those the cache lacks.
    private (int OfPrompt, int InAll) Begin(ContextTurn turn, InferenceResults results, Prompt prompt, IInferenceParams options)
    {
        using ContextCall call = context.Handle.Enter(turn);
        Start(results);
        int read = Text.Append(prompt, options);
        if (Text.IsEmpty)
        {
            throw new ArgumentException("There is nothing to read: the prompt is empty.", nameof(prompt));
        }

        Text.LeaveLastUnread();
        return (read, Text.UncachedCount);
    }

    // A text that was cut goes on: what was written of it may end inside a character or an antiprompt.
    private void GoOn(ContextTurn turn, StreamingTokenDecoder decoder, StopStrings antiprompts)
    {
        using ContextCall call = context.Handle.Enter(turn);
        ReadOnlySpan<int> written = Text.Tokens.Span[^Math.Min(Text.WrittenCount, 4 * (antiprompts.Longest + 1))..];  // a character is of at most four tokens
        int start = written.Length;
        while (start > 0 && !context.Weights.Tokenizer.IsEndOfGeneration(written[start - 1]))
        {
            start--;
        }

        decoder.AddRange(written[start..]);
        antiprompts.Add(decoder.Read());
    }

    // Not with the token: a task that never ran would not forget the prompt.
    private Task ReadAsync(ContextTurn turn, int unread, int needed, IInferenceParams options, CancellationToken cancellationToken) => Task.Run(
        () =>
        {
            using ContextCall call = context.Handle.Enter(turn);
            Text.ReadPrompt(unread, needed, options, cancellationToken);
        },
        CancellationToken.None);

    // Samples a token; all but the first need the one before them read first.
    private int Next(ContextTurn turn, IInferenceParams options, PipelineUse? pipeline, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        using ContextCall call = context.Handle.Enter(turn);
        if (Text.UncachedCount > 0)
        {
            Text.Read(Text.UncachedCount, options, cancellationToken);
        }

        using StepCancellation.Scope scope = StepCancellation.Enter(cancellationToken);
        int token = (int)(pipeline is null ? options.SamplingPipeline.SampleFrom(context, Text.LastIndex) : pipeline.Sample(context, Text.LastIndex));
        Text.Write(token);
        lock (_generated)
        {
            _generated.Add(token);
        }

        return token;
    }
}
