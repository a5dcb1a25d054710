using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>The text of a context's sequence 0: its tokens, and the number of them in the cache.</summary>
/// <remarks>The last generated token is not in the cache; it is decoded together with the next tokens.</remarks>
internal sealed partial class CachedText(LLamaContext context, ILogger? logger)
{
    private readonly SequenceTokens _tokens = new();  // the first CachedCount are in the cache
    private int[] _kept = [];                         // cached tokens that the first text may reuse as its prefix
    private readonly List<int> _marks = [];           // lengths at which the sequence is marked, ascending

    public bool IsEmpty => _tokens.Count == 0;

    /// <summary>Tokens of the sequence; those after <see cref="CachedCount"/> are not in the cache.</summary>
    public SequenceTokens Tokens => _tokens;

    /// <summary>Tokens that preceded the sequence's conversation; null: the text is not a conversation.</summary>
    public int[]? BeforeConversation { get; set; }

    /// <summary>Number of tokens at the end of the sequence that the model generated.</summary>
    public int WrittenCount { get; private set; }

    public int CachedCount { get; private set; }

    public int UncachedCount => _tokens.Count - CachedCount;

    public int FirstPromptLength { get; private set; }

    /// <summary>Index of the last decoded token in its batch, which has the logits.</summary>
    public int LastIndex { get; private set; }

    /// <summary>Takes over the context's sequence and its cache.</summary>
    public void Hold() => context.SequenceHolder = this;

    /// <summary>Restores the text of a saved state.</summary>
    /// <exception cref="StateLoadException">The cache holds a different number of tokens than the state.</exception>
    public void Restore(StatefulExecutorBase.ExecutorBaseState state)
    {
        int held = context.Handle.SeqLength(0);
        int cached = state.PastTokensCount;
        if (held != cached)
        {
            throw new StateLoadException($"The executor's state needs {cached} tokens in the cache; the cache holds {held}. First load the context's state that was saved together with it.");
        }

        Hold();
        _marks.Clear();
        _tokens.Restore([.. state.Embeds.Select(token => (int)token)], cached, state.Dropped ?? []);
        CachedCount = cached;
        FirstPromptLength = state.ConsumedTokensCount;
        WrittenCount = Math.Clamp(state.WrittenCount, 0, _tokens.Count);
        BeforeConversation = state.BeforeConversation;
    }

    /// <summary>Truncates the cache to these tokens, which the next text reuses as far as it starts with them.</summary>
    public void KeepFirst(int[] tokens)
    {
        Hold();
        context.Handle.SeqTruncate(0, tokens.Length);
        _kept = tokens;
    }

    /// <summary>Appends a prompt.</summary>
    /// <returns>Number of prompt tokens left to decode.</returns>
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
            CutExactly(_tokens.Count);
            FirstPromptLength = _tokens.Count < FirstPromptLength ? prompt.Tokens.Length : FirstPromptLength;
        }

        ReadOnlySpan<int> unread = prompt.Tokens.AsSpan(known);
        if (IsEmpty)
        {
            FirstPromptLength = unread.Length;
            int kept = Math.Min(_kept.AsSpan().CommonPrefixLength(unread), Math.Max(unread.Length - 1, 0));
            kept = context.Handle.SeqExactLength(0, kept);
            context.Handle.SeqTruncate(0, kept);  // removes tokens of another executor
            _marks.Clear();
            CachedCount = kept;
            _kept = [];
        }

        _tokens.AddRange(unread);
        return unread.Length;
    }

    /// <summary>Decodes an appended prompt. On failure the prompt is removed, so that tokens and cache stay consistent.</summary>
    /// <param name="unread">Number of prompt tokens left to decode.</param>
    /// <param name="needed">Number of prompt tokens, from the end, that a full context must not drop.</param>
    /// <param name="options">Overflow settings.</param>
    /// <param name="cancellationToken">Cancels decoding.</param>
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
        if (BeforeConversation is not null && unread > 0)
        {
            MarkPrompt();
        }
    }

    /// <summary>Decodes all tokens that are not in the cache. The last token's logits are then available.</summary>
    /// <param name="needed">Number of tokens, from the end, that a full context must not drop.</param>
    /// <param name="options">Overflow settings.</param>
    /// <param name="cancellationToken">Cancels decoding; the cache returns to its previous length.</param>
    public void Read(int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        MakeRoom(needed, options, cancellationToken);
        int start = CachedCount;
        try
        {
            while (ReadUntilFull(cancellationToken) is { } full)
            {
                start = MakeRoom(full, start, needed, options, cancellationToken);
            }
        }
        catch
        {
            context.Handle.SeqTruncate(0, start);
            CachedCount = start;
            throw;
        }
    }

    // Decodes the tokens that are not in the cache. Returns the error if the cache is full, otherwise null.
    private KvCacheFullException? ReadUntilFull(CancellationToken cancellationToken)
    {
        int batch = checked((int)context.BatchSize);
        while (CachedCount < _tokens.Count)
        {
            int n = Math.Min(batch, _tokens.Count - CachedCount);
            try
            {
                context.Handle.Decode(_tokens.Span.Slice(CachedCount, n), cancellationToken: cancellationToken);
            }
            catch (KvCacheFullException e)
            {
                return e;
            }

            CachedCount += n;
            LastIndex = n - 1;
        }

        return null;
    }

    /// <summary>Appends a generated token.</summary>
    public void Write(int token)
    {
        _tokens.Add(token);
        WrittenCount++;
    }

    /// <summary>Removes the last token from the cache, so that decoding it again yields its logits.</summary>
    public void LeaveLastUnread() => CutExactly(_tokens.Count - 1);

    // If another executor used the sequence in between, nothing of this text is in the cache: all of it is decoded again.
    private void HoldSequence()
    {
        if (context.SequenceHolder is { } other && other != this)
        {
            context.Handle.SeqTruncate(0, 0);
            CachedCount = 0;
            _marks.Clear();
        }

        Hold();
    }

    private void Cut(int cached)
    {
        if (CachedCount > cached)
        {
            context.Handle.SeqTruncate(0, cached);
            CachedCount = cached;
            _marks.RemoveAll(length => length > cached);
        }
    }

    // Cuts the cache where it then equals one that never had the removed tokens; those up to the given length are decoded again. A shifted text has no such place.
    private void CutExactly(int cached)
    {
        if (CachedCount > cached)
        {
            Cut(_tokens.Dropped.Count == 0 ? context.Handle.SeqExactLength(0, cached) : cached);
        }
    }

    // Conversations come back to the end of a prompt: an answer is generated again, or read as the template writes it.
    private void MarkPrompt()
    {
        const int MostMarks = 4;  // the first and the youngest; a mark takes as much memory as the ring
        try
        {
            context.Handle.SeqMark(0);
        }
        catch (NativeOutOfMemoryException)
        {
            return;  // without the mark, more is decoded again
        }

        _marks.RemoveAll(length => length >= CachedCount);
        _marks.Add(CachedCount);
        if (_marks.Count > MostMarks)
        {
            context.Handle.SeqDropMark(0, _marks[1]);
            _marks.RemoveAt(1);
        }
    }
}
