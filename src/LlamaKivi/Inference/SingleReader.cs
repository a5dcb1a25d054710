namespace LlamaKivi;

/// <summary>A stream whose enumerators reject MoveNextAsync before the previous call has completed.</summary>
/// <remarks>An async iterator would resume its state machine on a second thread, and the resulting exception would end the process.</remarks>
internal sealed class SingleReader<T>(IAsyncEnumerable<T> source) : IAsyncEnumerable<T>
{
    public IAsyncEnumerator<T> GetAsyncEnumerator(CancellationToken cancellationToken = default) => new Enumerator(source.GetAsyncEnumerator(cancellationToken));

    private sealed class Enumerator(IAsyncEnumerator<T> inner) : IAsyncEnumerator<T>
    {
        private bool _steps;

        public T Current => inner.Current;

        public ValueTask<bool> MoveNextAsync() =>
            Interlocked.Exchange(ref _steps, true) ? ValueTask.FromException<bool>(Busy()) : StepAsync();

        public async ValueTask DisposeAsync()
        {
            if (Interlocked.Exchange(ref _steps, true))
            {
                throw Busy();
            }

            try
            {
                await inner.DisposeAsync().ConfigureAwait(false);
            }
            finally
            {
                Volatile.Write(ref _steps, false);
            }
        }

        private async ValueTask<bool> StepAsync()
        {
            try
            {
                return await inner.MoveNextAsync().ConfigureAwait(false);
            }
            finally
            {
                Volatile.Write(ref _steps, false);
            }
        }

        private static InvalidOperationException Busy() =>
            new("The previous MoveNextAsync has not completed; await it before the next call of the enumerator. To interrupt it, cancel the stream's token.");
    }
}
