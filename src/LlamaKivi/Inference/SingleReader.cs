namespace LlamaKivi;

/// <summary>A stream whose enumerators refuse a step that begins before the last one has ended.</summary>
/// <remarks>The state machine of an async iterator takes such a step as the end of what it awaits: it runs on two threads at once, and its error ends the process.</remarks>
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
            new("The step before has not ended: await what MoveNextAsync returned before another call of the enumerator. To stop a step, cancel the token of the stream.");
    }
}
