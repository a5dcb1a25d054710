namespace LlamaKivi.Abstractions;

/// <summary>Generates continuations of texts.</summary>
public interface ILLamaExecutor
{
    /// <summary>Context of the executor.</summary>
    LLamaContext Context { get; }

    /// <summary>Whether the executor accepts images or audio. The engine supports only text.</summary>
    bool IsMultiModal => false;

    /// <summary>Prefills a text and streams its continuation.</summary>
    /// <param name="text">The prompt.</param>
    /// <param name="inferenceParams">Inference parameters; null: defaults.</param>
    /// <param name="token">Cancels prefill or generation; the context stays usable.</param>
    /// <returns>Pieces of text; no piece ends inside a character.</returns>
    IAsyncEnumerable<string> InferAsync(string text, IInferenceParams? inferenceParams = null, CancellationToken token = default);
}
