namespace LlamaKivi.Abstractions;

/// <summary>Continues texts.</summary>
public interface ILLamaExecutor
{
    /// <summary>The context the executor works on.</summary>
    LLamaContext Context { get; }

    /// <summary>Whether the executor reads images or sound besides text. The engine runs text models.</summary>
    bool IsMultiModal => false;

    /// <summary>Reads a text and streams its continuation.</summary>
    /// <param name="text">What to read.</param>
    /// <param name="inferenceParams">How to continue; null: the defaults.</param>
    /// <param name="token">Stops reading or writing; the context stays usable.</param>
    /// <returns>Pieces of text, none of which ends inside a character.</returns>
    IAsyncEnumerable<string> InferAsync(string text, IInferenceParams? inferenceParams = null, CancellationToken token = default);
}
