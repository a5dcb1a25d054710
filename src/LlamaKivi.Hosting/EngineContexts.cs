namespace LlamaKivi.Hosting;

/// <summary>Contexts beside the engine's own that share its weights, created on first use and freed with the engine.</summary>
/// <param name="engine">The engine.</param>
/// <param name="create">Creates the owner of a context.</param>
internal sealed class EngineContexts<T>(InferenceEngine engine, Func<LLamaWeights, T> create) : IDisposable
    where T : class, IDisposable
{
    private readonly Lock _gate = new();
    private T? _value;
    private bool _disposed;

    /// <summary>Waits for the model and returns the owner of the context.</summary>
    public async Task<T> GetAsync(CancellationToken cancellationToken)
    {
        LLamaWeights weights = await engine.WaitUntilReadyAsync(cancellationToken).ConfigureAwait(false);
        lock (_gate)
        {
            return _disposed ? throw InferenceEngine.Stopping() : _value ??= create(weights);
        }
    }

    public void Dispose()
    {
        lock (_gate)
        {
            _disposed = true;
            _value?.Dispose();
            _value = null;
        }
    }
}
