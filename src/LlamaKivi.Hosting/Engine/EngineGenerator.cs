using LlamaKivi.Common;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Hosting;

/// <summary>Generates the texts of chat clients on an engine; responses run concurrently.</summary>
internal sealed class EngineGenerator(InferenceEngine engine) : IChatGenerator
{
    public LLamaWeights? Weights => engine.LoadedWeights;

    public object Source => engine;

    public Task WaitUntilLoadedAsync(CancellationToken cancellationToken) => engine.WaitUntilReadyAsync(cancellationToken);

    public Task<IDisposable?> WaitTurnAsync(string operation, CancellationToken cancellationToken) => Task.FromResult<IDisposable?>(null);

    public void CheckLength(PromptText prompt) => engine.CheckLength(prompt);

    public (IAsyncEnumerable<string> Pieces, InferenceResults Results) Generate(
        IDisposable? turn, PromptText prompt, InferenceParams parameters, CancellationToken cancellationToken)
    {
        InferenceStream stream = engine.InferAsync(prompt, parameters, cancellationToken);
        return (stream, stream.Results);
    }
}
