using LlamaKivi.Common;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>Generates the texts that a chat client parses.</summary>
internal interface IChatGenerator
{
    /// <summary>The model; null: not known yet.</summary>
    LLamaWeights? Weights { get; }

    /// <summary>The object behind the generator, which <see cref="Microsoft.Extensions.AI.IChatClient.GetService"/> returns.</summary>
    object Source { get; }

    /// <summary>Waits until the model is loaded.</summary>
    Task WaitUntilLoadedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>Waits until the generator can take a response.</summary>
    /// <returns>The turn, which the response holds to its end; null: responses run concurrently.</returns>
    Task<IDisposable?> WaitTurnAsync(string operation, CancellationToken cancellationToken);

    /// <summary>Refuses a prompt that is too long, before a grammar is compiled for its answer.</summary>
    /// <exception cref="Exceptions.ContextOverflowException">The context cannot hold the prompt.</exception>
    void CheckLength(PromptText prompt)
    {
        // Executors may drop tokens to make room.
    }

    /// <summary>Prefills a prompt and streams its continuation.</summary>
    /// <param name="turn">The response's turn.</param>
    /// <param name="prompt">The prompt, a whole text.</param>
    /// <param name="parameters">Inference parameters; the sampling pipeline belongs to the response.</param>
    /// <param name="cancellationToken">Cancels prefill or generation.</param>
    /// <returns>The text, and the results, which are complete after its last piece.</returns>
    (IAsyncEnumerable<string> Pieces, InferenceResults Results) Generate(IDisposable? turn, PromptText prompt, InferenceParams parameters, CancellationToken cancellationToken);
}
