using Microsoft.Extensions.AI;

namespace LlamaKivi.Hosting;

/// <summary>Embeds texts with the model of an engine, in a separate context; texts are processed one at a time.</summary>
internal sealed class EngineEmbeddingGenerator(InferenceEngine engine, EngineContexts<LLamaEmbedder> embedder) : IEmbeddingGenerator<string, Embedding<float>>
{
    public Task<GeneratedEmbeddings<Embedding<float>>> GenerateAsync(
        IEnumerable<string> values, EmbeddingGenerationOptions? options = null, CancellationToken cancellationToken = default) =>
        embedder.UseAsync(generator => generator.GenerateAsync(values, options, cancellationToken), cancellationToken);

    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(EmbeddingGeneratorMetadata)
                ? new EmbeddingGeneratorMetadata("LlamaKivi", defaultModelId: engine.ModelName, defaultModelDimensions: engine.LoadedWeights?.EmbeddingSize)
            : serviceType.IsInstanceOfType(engine) ? engine
            : serviceType.IsInstanceOfType(this) ? this
            : null;
    }

    // The context belongs to the engine.
    public void Dispose()
    {
    }
}
