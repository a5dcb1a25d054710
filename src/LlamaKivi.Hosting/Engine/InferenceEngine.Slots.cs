using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

// Work on the scheduler between its steps: saving, restoring and erasing slots.
public sealed partial class InferenceEngine
{
    private readonly List<PendingWork> _pending = [];  // guarded by _gate

    /// <summary>The slots after the last step.</summary>
    internal IReadOnlyList<SlotStatus> Slots => Status.State is EngineState.Ready or EngineState.Draining ? _scheduler?.Status.Slots ?? [] : [];

    /// <summary>Waits until the slot's request has ended, then writes the slot's conversation to a file.</summary>
    /// <param name="slot">Number of the slot.</param>
    /// <param name="path">Path of the file, which is replaced atomically and readable by its owner alone.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    /// <returns>Number of tokens, and the file's size in bytes.</returns>
    /// <exception cref="SlotEmptyException">The slot has no conversation.</exception>
    internal async Task<(int Tokens, long Bytes)> SaveSlotAsync(int slot, string path, CancellationToken cancellationToken)
    {
        (int[] tokens, string key, byte[] state, byte[] identity) = await BetweenStepsAsync(slot, scheduler => scheduler.CopySlot(slot), cancellationToken).ConfigureAwait(false);
        PrefixFile file = await Task.Run(() => PrefixFile.Write(_ => path, identity, tokens, key, tokens.Length, state), cancellationToken).ConfigureAwait(false);
        return (tokens.Length, file.Size);
    }

    /// <summary>Waits until the slot's request has ended, then loads a conversation into the prefix cache and the slot.</summary>
    /// <param name="slot">Number of the slot.</param>
    /// <param name="path">Path of a file of <see cref="SaveSlotAsync"/>.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    /// <returns>Number of tokens, and the file's size in bytes.</returns>
    /// <exception cref="StateLoadException">The file is damaged, or its model or settings differ.</exception>
    /// <exception cref="ContextOverflowException">The conversation is larger than the prefix cache, or the KV cache has no room now.</exception>
    internal async Task<(int Tokens, long Bytes)> RestoreSlotAsync(int slot, string path, CancellationToken cancellationToken)
    {
        byte[] identity = await BetweenStepsAsync(slot, scheduler => scheduler.Identity, cancellationToken).ConfigureAwait(false);
        (PrefixFile file, byte[] state) = await Task.Run(() => PrefixFile.Read(path, identity), cancellationToken).ConfigureAwait(false);
        await BetweenStepsAsync(slot, scheduler => scheduler.RestoreSlot(slot, file.Tokens, file.Key, state), cancellationToken).ConfigureAwait(false);
        return (file.Tokens.Length, file.Size);
    }

    /// <summary>Waits until the slot's request has ended, then removes the slot's conversation from the cache. Prefixes that other conversations share stay.</summary>
    /// <returns>Number of tokens.</returns>
    internal Task<int> EraseSlotAsync(int slot, CancellationToken cancellationToken) => BetweenStepsAsync(slot, scheduler => scheduler.EraseSlot(slot), cancellationToken);

    // Runs when the slot is free and no step is under way.
    private async Task<T> BetweenStepsAsync<T>(int slot, Func<Scheduler, T> run, CancellationToken cancellationToken)
    {
        await WaitUntilReadyAsync(cancellationToken).ConfigureAwait(false);
        var result = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        var work = new PendingWork(
            slot,
            scheduler =>
            {
                try
                {
                    result.TrySetResult(run(scheduler));
                }
                catch (Exception e)
                {
                    result.TrySetException(e);
                }
            },
            error => result.TrySetException(error));
        lock (_gate)
        {
            if (_state is not (EngineState.Ready or EngineState.Draining))
            {
                throw Stopping();
            }

            _pending.Add(work);
        }

        Wake();
        try
        {
            return await result.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            lock (_gate)
            {
                _pending.Remove(work);
            }
        }
    }

    private void RunPending()
    {
        PendingWork[] ready;
        lock (_gate)
        {
            if (_pending.Count == 0)
            {
                return;
            }

            ready = [.. _pending.Where(work => !_scheduler!.IsBusy(work.Slot))];
            _pending.RemoveAll(ready.Contains);
        }

        foreach (PendingWork work in ready)
        {
            work.Run(_scheduler!);
        }
    }

    private void RefusePending(Exception error)
    {
        lock (_gate)
        {
            _pending.ForEach(work => work.Fail(error));
            _pending.Clear();
        }
    }

    private sealed record PendingWork(int Slot, Action<Scheduler> Run, Action<Exception> Fail);
}

/// <summary>A slot has no conversation that could be saved.</summary>
internal sealed class SlotEmptyException(string message) : InvalidOperationException(message);
