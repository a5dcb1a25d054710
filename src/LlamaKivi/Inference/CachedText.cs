using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>The text of sequence 0 of a context: its tokens, and how many of them the cache holds.</summary>
/// <remarks>The last token written is not in the cache yet: it is read together with what follows it.</remarks>
internal sealed class CachedText(LLamaContext context, ILogger? logger)
{
    private readonly SequenceTokens _tokens = new();  // in the cache up to CachedCount
    private int[] _kept = [];                         // tokens in the cache that a first text may begin with

    public bool IsEmpty => _tokens.Count == 0;

    /// <summary>Tokens of the sequence, the last of which may not be in the cache.</summary>
    public SequenceTokens Tokens => _tokens;

    /// <summary>Tokens that came before the conversation that the sequence holds; null: it was not given one.</summary>
    public int[]? BeforeConversation { get; set; }

    /// <summary>Last tokens of the sequence that the model wrote.</summary>
    public int WrittenCount { get; private set; }

    public int CachedCount { get; private set; }

    public int UncachedCount => _tokens.Count - CachedCount;

    public int FirstPromptLength { get; private set; }

    /// <summary>Index of the last token read in its batch: where its logits are.</summary>
    public int LastIndex { get; private set; }

    /// <summary>Takes the context's sequence over, with what the cache holds of it.</summary>
    public void Hold() => context.SequenceHolder = this;

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

        Hold();
        _tokens.Restore([.. state.Embeds.Select(token => (int)token)], cached, state.Dropped ?? []);
        CachedCount = cached;
        FirstPromptLength = state.ConsumedTokensCount;
        WrittenCount = Math.Clamp(state.WrittenCount, 0, _tokens.Count);
        BeforeConversation = state.BeforeConversation;
    }

    /// <summary>Keeps the first tokens of what is in the cache for the text to come, if it begins with them; the others go.</summary>
    public void KeepFirst(int[] tokens)
    {
        Hold();
        context.Handle.SeqTruncate(0, tokens.Length);
        _kept = tokens;
    }

    /// <summary>Appends a prompt.</summary>
    /// <returns>The number of its tokens that are left to be read.</returns>
    public int Append(Prompt prompt, IInferenceParams options)
    {
        int size = checked((int)context.ContextSize);
        ContextRoom.Check(prompt, options, size, context.Weights.Tokenizer.AddBos);
        HoldSequence();
        int known = 0;
        if (prompt.IsWhole)
        {
            known = _tokens.KeepCommon(prompt.Tokens, size);
            WrittenCount = 0;
            BeforeConversation ??= [];
            Cut(_tokens.Count);
            FirstPromptLength = _tokens.Count < FirstPromptLength ? prompt.Tokens.Length : FirstPromptLength;
        }

        ReadOnlySpan<int> unread = prompt.Tokens.AsSpan(known);
        if (IsEmpty)
        {
            FirstPromptLength = unread.Length;
            int kept = Math.Min(_kept.AsSpan().CommonPrefixLength(unread), Math.Max(unread.Length - 1, 0));
            context.Handle.SeqTruncate(0, kept);  // what another executor left there
            CachedCount = kept;
            _kept = [];
        }

        _tokens.AddRange(unread);
        return unread.Length;
    }

    /// <summary>Reads a prompt that was appended. If that fails, the prompt is forgotten, so that the tokens and the cache agree.</summary>
    /// <param name="unread">Tokens of it that are left to be read.</param>
    /// <param name="needed">Tokens of it that stay when the context is full.</param>
    /// <param name="options">What to do then.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public void ReadPrompt(int unread, int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        try
        {
            cancellationToken.ThrowIfCancellationRequested();
            Read(Math.Max(needed, 1), options, cancellationToken);
        }
        catch
        {
            _tokens.Truncate(Math.Max(CachedCount, _tokens.Count - unread));
            WrittenCount = Math.Min(WrittenCount, _tokens.Count);
            throw;
        }

        WrittenCount = unread > 0 ? 0 : WrittenCount;
    }

    /// <summary>Brings the cache up to the tokens and leaves the last one's logits.</summary>
    /// <param name="needed">Tokens at the end that stay when the context is full.</param>
    /// <param name="options">What to do then.</param>
    /// <param name="cancellationToken">Stops it; the cache is then as before.</param>
    public void Read(int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        MakeRoom(needed, options, cancellationToken);
        int batch = checked((int)context.BatchSize);
        ReadOnlySpan<int> tokens = _tokens.Span;
        int start = CachedCount;
        try
        {
            while (CachedCount < tokens.Length)
            {
                int n = Math.Min(batch, tokens.Length - CachedCount);
                context.Handle.Decode(tokens.Slice(CachedCount, n), cancellationToken: cancellationToken);
                CachedCount += n;
                LastIndex = n - 1;
            }
        }
        catch
        {
            context.Handle.SeqTruncate(0, start);
            CachedCount = start;
            throw;
        }
    }

    /// <summary>Appends a token that the model wrote.</summary>
    public void Write(int token)
    {
        _tokens.Add(token);
        WrittenCount++;
    }

    /// <summary>Takes the last token out of the cache if it is there: the logits to go on from are those of the last token read.</summary>
    public void LeaveLastUnread() => Cut(_tokens.Count - 1);

    // Of a text whose sequence another executor of the context took meanwhile nothing is in the cache: it is read again.
    private void HoldSequence()
    {
        if (context.SequenceHolder is { } other && other != this)
        {
            context.Handle.SeqTruncate(0, 0);
            CachedCount = 0;
        }

        Hold();
    }

    private void Cut(int cached)
    {
        if (CachedCount > cached)
        {
            context.Handle.SeqTruncate(0, cached);
            CachedCount = cached;
        }
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
                $"The context is full: {CachedCount} of {size} tokens used, {_tokens.Count - CachedCount} more needed. Raise ContextSize, " +
                $"or set OverflowStrategy to {nameof(ContextOverflowStrategy.Shift)} or {nameof(ContextOverflowStrategy.Stop)}.");
        }

        // A text without its beginning-of-text token is none that the model knows.
        int bos = _tokens[0] == context.Weights.Tokenizer.BosId ? 1 : 0;
        int keep = Math.Clamp(options.TokensKeep < 0 ? FirstPromptLength : options.TokensKeep + bos, 0, _tokens.Count - needed);
        int drop = ContextRoom.ToDrop(_tokens.Count, keep, needed, size, options.ContextTruncationPercentage);
        cancellationToken.ThrowIfCancellationRequested();
        int end = Math.Min(keep + drop, CachedCount);
        if (options.OverflowStrategy != ContextOverflowStrategy.Shift)
        {
            Cut(keep);
        }
        else if (end > keep)
        {
            context.Handle.SeqRemove(0, keep, end);
            CachedCount -= end - keep;
        }

        _tokens.Drop(keep, drop);
        WrittenCount = Math.Min(WrittenCount, _tokens.Count);
        if (logger is not null)
        {
            Log.ContextTruncated(logger, drop, _tokens.Count - keep);
        }
    }
}
