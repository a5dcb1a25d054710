namespace LlamaKivi.Sampling.Grammars;

/// <summary>The cancellation token of the current thread's step, because the interfaces of pipelines and samplers do not pass one.</summary>
internal static class StepCancellation
{
    [ThreadStatic]
    private static CancellationToken _token;

    public static CancellationToken Token => _token;

    /// <summary>Sets the token of this thread until the scope is disposed.</summary>
    public static Scope Enter(CancellationToken token)
    {
        var scope = new Scope(_token);
        _token = token;
        return scope;
    }

    /// <summary>Restores the previous token.</summary>
    public readonly ref struct Scope(CancellationToken before)
    {
        public void Dispose() => _token = before;
    }
}
