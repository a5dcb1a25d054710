using System.Runtime.CompilerServices;
using System.Threading.Channels;

namespace LlamaKivi.Server;

/// <summary>Reads several streams at once.</summary>
internal static class Merged
{
    /// <summary>Items of all streams as they come, each with its stream's index. The first error ends all of them.</summary>
    public static IAsyncEnumerable<(int Stream, T Item)> ReadAsync<T>(IReadOnlyList<Func<CancellationToken, IAsyncEnumerable<T>>> streams, CancellationToken cancellationToken) =>
        streams.Count == 1 ? ReadOneAsync(streams[0], cancellationToken) : ReadManyAsync(streams, cancellationToken);

    private static async IAsyncEnumerable<(int Stream, T Item)> ReadOneAsync<T>(Func<CancellationToken, IAsyncEnumerable<T>> stream, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await foreach (T item in stream(cancellationToken).ConfigureAwait(false))
        {
            yield return (0, item);
        }
    }

    private static async IAsyncEnumerable<(int Stream, T Item)> ReadManyAsync<T>(
        IReadOnlyList<Func<CancellationToken, IAsyncEnumerable<T>>> streams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        var items = Channel.CreateUnbounded<(int, T)>(new UnboundedChannelOptions { SingleReader = true });
        Task[] readers = [.. streams.Select(CopyAsync)];
        Task all = CompleteAsync();
        try
        {
            await foreach ((int, T) item in items.Reader.ReadAllAsync(CancellationToken.None).ConfigureAwait(false))
            {
                yield return item;
            }
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await all.ConfigureAwait(false);
        }

        async Task CopyAsync(Func<CancellationToken, IAsyncEnumerable<T>> stream, int index)
        {
            await foreach (T item in stream(stop.Token).ConfigureAwait(false))
            {
                items.Writer.TryWrite((index, item));
            }
        }

        async Task CompleteAsync()
        {
            await foreach (Task reader in Task.WhenEach(readers).ConfigureAwait(false))
            {
                if (!reader.IsCompletedSuccessfully)
                {
                    items.Writer.TryComplete(reader.Exception?.InnerException ?? new OperationCanceledException(stop.Token));
                    await stop.CancelAsync().ConfigureAwait(false);
                }
            }

            items.Writer.TryComplete();
        }
    }
}
