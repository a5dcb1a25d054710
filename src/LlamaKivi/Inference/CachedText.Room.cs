using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi;

/// <content>Makes room for more tokens: drops the oldest ones after those to keep.</content>
internal sealed partial class CachedText
{
    // needed: number of tokens, from the end, that must not be dropped.
    private void MakeRoom(int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        int size = checked((int)context.ContextSize);
        if (_tokens.Count <= size)
        {
            return;
        }

        if (!Drops(options))
        {
            throw new ContextOverflowException(
                $"The context is full: {CachedCount} of {size} tokens used, {_tokens.Count - CachedCount} more needed. Raise ContextSize, " +
                $"or set OverflowStrategy to {nameof(ContextOverflowStrategy.Shift)} or {nameof(ContextOverflowStrategy.Stop)}.");
        }

        int keep = Kept(needed, options);
        int drop = ContextRoom.ToDrop(_tokens.Count, keep, needed, size, options.ContextTruncationPercentage);
        cancellationToken.ThrowIfCancellationRequested();
        Drop(keep, drop, options);
    }

    // Makes room in a cache that is full below the context's size: its memory budget is used up, or other sequences hold its tokens.
    // start: number of tokens to which the caller truncates the cache on failure. Returns that number after the drop.
    private int MakeRoom(KvCacheFullException full, int start, int needed, IInferenceParams options, CancellationToken cancellationToken)
    {
        if (!Drops(options))
        {
            throw full;
        }

        int keep = Kept(needed, options);
        int possible = Math.Min(_tokens.Count - needed, CachedCount) - keep;
        if (possible <= 0)
        {
            throw new ContextOverflowException($"{full.Message}. {keep} tokens to keep and {needed} to read do not fit: shorten the prompt or lower TokensKeep.", full);
        }

        cancellationToken.ThrowIfCancellationRequested();
        int drop = ContextRoom.ToDropForBytes(_tokens.Count, keep, possible, options.ContextTruncationPercentage);
        Drop(keep, drop, options);
        return Math.Min(start <= keep ? start : Math.Max(keep, start - drop), CachedCount);
    }

    private static bool Drops(IInferenceParams options) => options.OverflowStrategy is not (ContextOverflowStrategy.ThrowException or ContextOverflowStrategy.Stop);

    // Models are trained on texts that start with the beginning-of-text token, so it is never dropped.
    private int Kept(int needed, IInferenceParams options)
    {
        int bos = _tokens[0] == context.Weights.Tokenizer.BosId ? 1 : 0;
        return Math.Clamp(options.TokensKeep < 0 ? FirstPromptLength : options.TokensKeep + bos, 0, _tokens.Count - needed);
    }

    private void Drop(int keep, int drop, IInferenceParams options)
    {
        int end = Math.Min(keep + drop, CachedCount);
        if (options.OverflowStrategy != ContextOverflowStrategy.Shift)
        {
            Cut(keep);
        }
        else if (end > keep)
        {
            context.Handle.SeqRemove(0, keep, end);
            CachedCount -= end - keep;
            _marks.RemoveAll(length => length > keep);
        }

        _tokens.Drop(keep, drop);
        WrittenCount = Math.Min(WrittenCount, _tokens.Count);
        if (logger is not null)
        {
            Log.ContextTruncated(logger, drop, _tokens.Count - keep);
        }
    }
}
