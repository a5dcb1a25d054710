namespace LlamaKivi.Hosting;

/// <summary>A context that shares the engine's weights but not its cache, created on first use and freed with the engine.</summary>
/// <param name="engine">The engine.</param>
/// <param name="create">Creates the owner of a context.</param>
internal sealed class EngineContexts<T>(InferenceEngine engine, Func<LLamaWeights, T> create) : IDisposable
    where T : class, IDisposable
{
    private readonly Lock _gate = new();
    private T? _value;
    private bool _disposed;

    /// <summary>Waits for the model, then calls a function with the owner of the context. An engine that drains waits for the function.</summary>
    /// <exception cref="EngineBusyException">The engine is stopping.</exception>
    public async Task<TResult> UseAsync<TResult>(Func<T, Task<TResult>> use, CancellationToken cancellationToken)
    {
        LLamaWeights weights = await engine.WaitUntilReadyAsync(cancellationToken).ConfigureAwait(false);
        using IDisposable inUse = engine.BeginUse();
        return await use(Get(weights)).ConfigureAwait(false);
    }

    private T Get(LLamaWeights weights)
    {
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
