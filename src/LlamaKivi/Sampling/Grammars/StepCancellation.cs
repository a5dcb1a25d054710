namespace LlamaKivi.Sampling.Grammars;

/// <summary>The cancellation of the step that a thread computes. The interface of pipelines and samplers has no place for it.</summary>
internal static class StepCancellation
{
    [ThreadStatic]
    private static CancellationToken _token;

    public static CancellationToken Token => _token;

    /// <summary>Has a token looked at until the scope is disposed, on this thread.</summary>
    public static Scope Enter(CancellationToken token)
    {
        var scope = new Scope(_token);
        _token = token;
        return scope;
    }

    /// <summary>Puts the token before it back.</summary>
    public readonly ref struct Scope(CancellationToken before)
    {
        public void Dispose() => _token = before;
    }
}
