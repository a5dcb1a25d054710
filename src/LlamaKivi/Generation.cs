using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
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
    private readonly List<int> _tokens = [];  // of the sequence, in the cache up to _inCache
    private readonly List<int> _generated = [];
    private int _inCache;
    private int _firstPrompt;
    private int _kept;       // tokens in the cache that the text to come begins with
    private int _lastIndex;  // of the last token read in its batch: where its logits are

    public IReadOnlyList<int> Generated => _generated;

    public InferenceTimings Timings { get; private set; }

    public StopReason StopReason { get; set; }

    public bool IsEmpty => _tokens.Count == 0;

    /// <summary>Tokens of the sequence, the last of which may not be in the cache.</summary>
    public IReadOnlyList<int> Tokens => _tokens;

    public int CachedCount => _inCache;

    public int FirstPromptLength => _firstPrompt;

    /// <summary>Takes the sequence as it was when its tokens and what of them was in the cache were written down.</summary>
    /// <exception cref="StateLoadException">The cache does not hold that many tokens.</exception>
    public void Restore(IEnumerable<int> tokens, int cached, int firstPrompt)
    {
        int held = context.Handle.SeqLength(0);
        if (held != cached)
        {
            throw new StateLoadException($"The executor's state goes with {cached} tokens in the cache; it holds {held}. Load the context's state of the same moment first.");
        }

        _tokens.Clear();
        _tokens.AddRange(tokens);
        _inCache = cached;
        _firstPrompt = firstPrompt;
    }

    /// <summary>Forgets the tokens from a number on.</summary>
    public void Rewind(int count)
    {
        if (count < _tokens.Count)
        {
            _tokens.RemoveRange(count, _tokens.Count - count);
        }

        // As after a text was written: its last token is not in the cache.
        int cached = Math.Max(count - 1, 0);
        if (_inCache > cached)
        {
            context.Handle.SeqTruncate(0, cached);
            _inCache = cached;
        }
    }

    /// <summary>Takes the first tokens of what is in the cache for the first tokens of the text to come; the others go.</summary>
    public void KeepFirst(int count)
    {
        context.Handle.SeqTruncate(0, count);
        _kept = count;
    }

    /// <summary>Reads tokens into the cache and writes nothing.</summary>
    public Task PrefillAsync(int[] prompt, IInferenceParams options, CancellationToken cancellationToken)
    {
        Append(prompt);
        return ReadAsync(prompt.Length, options, cancellationToken);
    }

    public async IAsyncEnumerable<string> RunAsync(int[] prompt, IInferenceParams options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        Timings = default;
        StopReason = StopReason.None;
        _generated.Clear();
        (options.SamplingPipeline as BaseSamplingPipeline)?.BeginText();
        Append(prompt);
        if (IsEmpty)
        {
            throw new ArgumentException("There is nothing to read: the prompt is empty.", nameof(prompt));
        }

        Rewind(_tokens.Count);  // the logits to go on from are those of the last token

        int unread = _tokens.Count - _inCache;
        long start = Stopwatch.GetTimestamp();
        await ReadAsync(prompt.Length, options, cancellationToken).ConfigureAwait(false);
        Timings = Timings with { PromptTokens = unread, PromptSeconds = Stopwatch.GetElapsedTime(start).TotalSeconds };

        var decoder = new StreamingTokenDecoder(context.Weights.Tokenizer) { DecodeSpecialTokens = options.DecodeSpecialTokens };
        var antiprompts = new StopStrings(options.AntiPrompts);
        using var steps = new StepLoop<int>(() => Next(options, cancellationToken));
        while (StopReason == StopReason.None)
        {
            if (options.MaxTokens >= 0 && _generated.Count >= options.MaxTokens)
            {
                StopReason = StopReason.MaxTokens;
                break;
            }

            start = Stopwatch.GetTimestamp();
            int token = await steps.RunAsync().ConfigureAwait(false);
            Timings = Timings with
            {
                GeneratedTokens = _generated.Count,
                DecodeSeconds = Timings.DecodeSeconds + Stopwatch.GetElapsedTime(start).TotalSeconds,
            };
            bool ended = context.Weights.Tokenizer.IsEndOfGeneration(token);
            if (!ended)
            {
                decoder.Add(token);  // what ends a text is not written, whatever DecodeSpecialTokens says
            }

            string text = decoder.Read();
            if (ended)
            {
                StopReason = StopReason.EndOfGeneration;
            }
            else if (text.Length > 0 && antiprompts.Add(text))
            {
                StopReason = StopReason.AntiPrompt;
            }

            if (text.Length > 0)
            {
                yield return text;
            }
        }

        string rest = decoder.Flush();
        if (rest.Length > 0)
        {
            yield return rest;
        }
    }

    private void Append(int[] prompt)
    {
        if (IsEmpty)
        {
            _firstPrompt = prompt.Length;
            context.Handle.SeqTruncate(0, _kept);  // what another executor left there
            _inCache = _kept;
            _kept = 0;
        }

        _tokens.AddRange(prompt);
    }

    private async Task ReadAsync(int promptLength, IInferenceParams options, CancellationToken cancellationToken)
    {
        try
        {
            await Task.Run(() => Read(options, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            // Not read: forget the prompt, so that the sequence and the cache agree.
            int keep = Math.Max(_inCache, _tokens.Count - promptLength);
            _tokens.RemoveRange(keep, _tokens.Count - keep);
            throw;
        }
    }

    // Brings the cache up to the tokens and leaves the last one's logits.
    private void Read(IInferenceParams options, CancellationToken cancellationToken)
    {
        MakeRoom(options, cancellationToken);
        int batch = checked((int)context.BatchSize);
        ReadOnlySpan<int> tokens = CollectionsMarshal.AsSpan(_tokens);
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
    private int Next(IInferenceParams options, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (_inCache < _tokens.Count)
        {
            Read(options, cancellationToken);
        }

        using StepCancellation.Scope scope = StepCancellation.Enter(cancellationToken);
        int token = (int)options.SamplingPipeline.Sample(context.NativeHandle, _lastIndex);
        _tokens.Add(token);
        _generated.Add(token);
        return token;
    }

    private void MakeRoom(IInferenceParams options, CancellationToken cancellationToken)
    {
        int size = checked((int)context.ContextSize);
        if (_tokens.Count <= size)
        {
            return;
        }

        int keep = Math.Clamp(options.TokensKeep < 0 ? _firstPrompt : options.TokensKeep, 0, _inCache);
        if (options.OverflowStrategy == ContextOverflowStrategy.ThrowException)
        {
            throw new ContextOverflowException(
                $"The context is full: {_inCache} of {size} tokens used, {_tokens.Count - _inCache} more needed. Raise ContextSize, " +
                $"or set OverflowStrategy to {nameof(ContextOverflowStrategy.Shift)}.");
        }

        if (options.ContextTruncationPercentage is not (> 0 and <= 1))
        {
            throw new ArgumentException(
                $"ContextTruncationPercentage is {options.ContextTruncationPercentage}; it must be above 0 and at most 1.", nameof(options));
        }

        int wanted = (int)Math.Ceiling((_tokens.Count - keep) * options.ContextTruncationPercentage);
        int drop = Math.Max(wanted, _tokens.Count - size);
        if (keep + drop >= _tokens.Count)
        {
            throw new ContextOverflowException(
                $"The context holds {size} tokens; the {keep} to keep and the {_tokens.Count - _inCache} to read leave no room. Raise ContextSize or lower TokensKeep.");
        }

        cancellationToken.ThrowIfCancellationRequested();
        _tokens.RemoveRange(keep, drop);
        if (options.OverflowStrategy == ContextOverflowStrategy.Shift)
        {
            int cached = Math.Min(keep + drop, _inCache);
            context.Handle.SeqRemove(0, keep, cached);
            _inCache -= cached - keep;
        }
        else
        {
            context.Handle.SeqTruncate(0, keep);
            _inCache = keep;
        }

        if (logger is not null)
        {
            Log.ContextTruncated(logger, drop, _tokens.Count - keep);
        }
    }
}
