using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Blocks the engine's loop when its request begins.</summary>
internal sealed class BlockingPipeline : DefaultSamplingPipeline
{
    private readonly TaskCompletionSource _begun = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public ManualResetEventSlim Go { get; } = new();

    /// <summary>Completes when the loop is blocked.</summary>
    public Task Begun => _begun.Task;

    public override void Reset()
    {
        _begun.TrySetResult();
        Go.Wait();
        base.Reset();
    }

    public override void Dispose()
    {
        Go.Dispose();
        base.Dispose();
    }
}
