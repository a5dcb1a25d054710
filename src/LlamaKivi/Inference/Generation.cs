using System.Diagnostics;
using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Reads prompts into one sequence of a context and continues them, token by token.</summary>
/// <remarks>
/// The last token written is not in the cache yet: it is read together with what follows it.
/// </remarks>
internal sealed class Generation(LLamaContext context, ILogger? logger = null)
{
    private InferenceResults _call = new();  // of the last one. Not its stream: nothing here may keep the turn
    private int[] _kept = [];  // tokens in the cache that a first text may begin with
    private readonly SequenceTokens _tokens = new();  // in the cache up to _inCache
    private readonly List<int> _generated = [];  // locked: any thread may ask for it
    private int _inCache;
    private int _written;    // last tokens that the model wrote
    private int _firstPrompt;
    private int _lastIndex;  // of the last token read in its batch: where its logits are

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

    public bool IsEmpty => _tokens.Count == 0;

    /// <summary>Tokens of the sequence, the last of which may not be in the cache.</summary>
    public SequenceTokens Tokens => _tokens;

    /// <summary>Tokens that came before the conversation that the sequence holds; null: it was not given one.</summary>
    public int[]? BeforeConversation { get; set; }

    /// <summary>Last tokens of the sequence that the model wrote.</summary>
    public int WrittenCount => _written;

    public int CachedCount => _inCache;

    public int FirstPromptLength => _firstPrompt;

    /// <summary>Takes the sequence as it was when a state was written down.</summary>
    /// <exception cref="StateLoadException">The cache does not hold that many tokens.</exception>
    public void Restore(StatefulExecutorBase.ExecutorBaseState state)
    {
        int held = context.Handle.SeqLength(0);
        int cached = state.PastTokensCount;
        if (held != cached)
        {
            throw new StateLoadException($"The executor's state goes with {cached} tokens in the cache; it holds {held}. Load the context's state of the same moment first.");
        }

        context.SequenceHolder = this;
        _tokens.Restore([.. state.Embeds.Select(token => (int)token)], cached, state.Dropped ?? []);
        _inCache = cached;
        _firstPrompt = state.ConsumedTokensCount;
        _written = Math.Clamp(state.WrittenCount, 0, _tokens.Count);
        BeforeConversation = state.BeforeConversation;
    }

    /// <summary>Keeps the first tokens of what is in the cache for the text to come, if it begins with them; the others go.</summary>
    public void KeepFirst(int[] tokens)
    {
        context.SequenceHolder = this;
        context.Handle.SeqTruncate(0, tokens.Length);
        _kept = tokens;
    }

    /// <summary>Reads tokens into the cache and writes nothing.</summary>
    public Task PrefillAsync(ContextTurn turn, Prompt prompt, IInferenceParams options, CancellationToken cancellationToken)
    {
        int read;
        using (context.Handle.Enter(turn))
        {
            read = Append(prompt, options);
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
        int size = checked((int)context.ContextSize);
        using var steps = new StepLoop<int>(() => Next(turn, options, pipeline, cancellationToken));
        while (call.StopReason == StopReason.None)
        {
            if (options.MaxTokens >= 0 && written >= options.MaxTokens)
            {
                call.StopReason = StopReason.MaxTokens;
                break;
            }

            if (written > 0 && _tokens.Count > size && options.OverflowStrategy is (ContextOverflowStrategy.ThrowException or ContextOverflowStrategy.Stop))
            {
                call.StopReason = StopReason.ContextFull;
                if (options.OverflowStrategy == ContextOverflowStrategy.Stop)
                {
                    break;
                }
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
                decoder.DecodeSpecialTokens = options.DecodeSpecialTokens || (options as MarkedInferenceParams)?.ShownTokens.Contains(token) == true;
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

    // Gives the tokens of the prompt that are left to be read, and how many that makes with those the cache lacks.
    private (int OfPrompt, int InAll) Begin(ContextTurn turn, InferenceResults results, Prompt prompt, IInferenceParams options)
    {
        using ContextCall call = context.Handle.Enter(turn);
        results.Timings = default;
        results.StopReason = StopReason.None;
        _call = results;
        lock (_generated)
        {
            _generated.Clear();
        }

        int read = Append(prompt, options);
        if (IsEmpty)
        {
            throw new ArgumentException("There is nothing to read: the prompt is empty.", nameof(prompt));
        }

        if (_inCache == _tokens.Count)
        {
            Cut(_tokens.Count - 1);  // the logits to go on from are those of the last token
        }

        results.CachedTokens = _inCache;
        return (read, _tokens.Count - _inCache);
    }

    // A text that was cut goes on: what was written of it may end inside a character or an antiprompt.
    private void GoOn(ContextTurn turn, StreamingTokenDecoder decoder, StopStrings antiprompts)
    {
        using ContextCall call = context.Handle.Enter(turn);
        ReadOnlySpan<int> written = _tokens.Span[^Math.Min(_written, 4 * (antiprompts.Longest + 1))..];  // a character is of at most four tokens
        int start = written.Length;
        while (start > 0 && !context.Weights.Tokenizer.IsEndOfGeneration(written[start - 1]))
        {
            start--;
        }

        decoder.AddRange(written[start..]);
        antiprompts.Add(decoder.Read());
    }

    // The number of tokens that are left to be read of a prompt.
    private int Append(Prompt prompt, IInferenceParams options)
    {
        int size = checked((int)context.ContextSize);
        ContextRoom.Check(prompt, options, size, context.Weights.Tokenizer.AddBos);
        HoldSequence();
        int known = 0;
        if (prompt.IsWhole)
        {
            known = _tokens.KeepCommon(prompt.Tokens, size);
            _written = 0;
            BeforeConversation ??= [];
            Cut(_tokens.Count);
            _firstPrompt = _tokens.Count < _firstPrompt ? prompt.Tokens.Length : _firstPrompt;
        }

        ReadOnlySpan<int> unread = prompt.Tokens.AsSpan(known);
        if (IsEmpty)
        {
            _firstPrompt = unread.Length;
            int kept = Math.Min(_kept.AsSpan().CommonPrefixLength(unread), Math.Max(unread.Length - 1, 0));
            context.Handle.SeqTruncate(0, kept);  // what another executor left there
            _inCache = kept;
            _kept = [];
        }

        _tokens.AddRange(unread);
        return unread.Length;
    }

    // Of a text whose sequence another executor of the context took meanwhile nothing is in the cache: it is read again.
    private void HoldSequence()
    {
        if (context.SequenceHolder is { } other && other != this)
        {
            context.Handle.SeqTruncate(0, 0);
            _inCache = 0;
        }

        context.SequenceHolder = this;
    }

    private void Cut(int cached)
    {
        if (_inCache > cached)
        {
            context.Handle.SeqTruncate(0, cached);
            _inCache = cached;
        }
    }

    // Not with the token: a task that never ran would not forget the prompt.
    private Task ReadAsync(ContextTurn turn, int unread, int needed, IInferenceParams options, CancellationToken cancellationToken) => Task.Run(
        () =>
        {
            using ContextCall call = context.Handle.Enter(turn);
            try
            {
                cancellationToken.ThrowIfCancellationRequested();
                Read(Math.Max(needed, 1), options, cancellationToken);
            }
            catch
            {
                // Not read: forget the prompt, so that the sequence and the cache agree.
                _tokens.Truncate(Math.Max(_inCache, _tokens.Count - unread));
                _written = Math.Min(_written, _tokens.Count);
                throw;
            }

            _written = unread > 0 ? 0 : _written;
        },
        CancellationToken.None);

    // Brings the cache up to the tokens and leaves the last one's logits.
    private void Read(int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        MakeRoom(needed, options, cancellationToken);
        int batch = checked((int)context.BatchSize);
        ReadOnlySpan<int> tokens = _tokens.Span;
        int start = _inCache;
        try
        {
            while (_inCache < tokens.Length)
            {
                int n = Math.Min(batch, tokens.Length - _inCache);
                context.Handle.Decode(tokens.Slice(_inCache, n), cancellationToken: cancellationToken);
                _inCache += n;
                _lastIndex = n - 1;
            }
        }
        catch
        {
            context.Handle.SeqTruncate(0, start);
            _inCache = start;
            throw;
        }
    }

    // Samples a token; all but the first need the one before them read first.
    private int Next(ContextTurn turn, IInferenceParams options, PipelineUse pipeline, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        using ContextCall call = context.Handle.Enter(turn);
        if (_inCache < _tokens.Count)
        {
            Read(_tokens.Count - _inCache, options, cancellationToken);
        }

        using StepCancellation.Scope scope = StepCancellation.Enter(cancellationToken);
        int token = (int)pipeline.Sample(context.NativeHandle, _lastIndex);
        _tokens.Add(token);
        _written++;
        lock (_generated)
        {
            _generated.Add(token);
        }

        return token;
    }

    // needed: tokens at the end that stay.
    private void MakeRoom(int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        int size = checked((int)context.ContextSize);
        if (_tokens.Count <= size)
        {
            return;
        }

        if (options.OverflowStrategy is ContextOverflowStrategy.ThrowException or ContextOverflowStrategy.Stop)
        {
            throw new ContextOverflowException(
                $"The context is full: {_inCache} of {size} tokens used, {_tokens.Count - _inCache} more needed. Raise ContextSize, " +
                $"or set OverflowStrategy to {nameof(ContextOverflowStrategy.Shift)} or {nameof(ContextOverflowStrategy.Stop)}.");
        }

        // A text without its beginning-of-text token is none that the model knows.
        int bos = _tokens[0] == context.Weights.Tokenizer.BosId ? 1 : 0;
        int keep = Math.Clamp(options.TokensKeep < 0 ? _firstPrompt : options.TokensKeep + bos, 0, _tokens.Count - needed);
        int drop = ContextRoom.ToDrop(_tokens.Count, keep, needed, size, options.ContextTruncationPercentage);
        cancellationToken.ThrowIfCancellationRequested();
        int end = Math.Min(keep + drop, _inCache);
        if (options.OverflowStrategy != ContextOverflowStrategy.Shift)
        {
            Cut(keep);
        }
        else if (end > keep)
        {
            context.Handle.SeqRemove(0, keep, end);
            _inCache -= end - keep;
        }

        _tokens.Drop(keep, drop);
        _written = Math.Min(_written, _tokens.Count);
        if (logger is not null)
        {
            Log.ContextTruncated(logger, drop, _tokens.Count - keep);
        }
    }
}
