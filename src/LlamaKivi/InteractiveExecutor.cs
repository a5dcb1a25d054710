using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Continues one growing text: each call reads more of it and writes on, with all that came before in the cache.</summary>
public sealed class InteractiveExecutor : ILLamaExecutor
{
    private readonly Generation _generation;

    /// <summary>Works on sequence 0 of a context.</summary>
    public InteractiveExecutor(LLamaContext context, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(context);
        Context = context;
        _generation = new Generation(context, logger);
    }

    /// <inheritdoc/>
    public LLamaContext Context { get; }

    /// <summary>How long the last inference took.</summary>
    public InferenceTimings Timings => _generation.Timings;

    /// <summary>Why the last inference ended.</summary>
    public StopReason StopReason => _generation.StopReason;

    /// <summary>Tokens the last inference wrote.</summary>
    public IReadOnlyList<int> GeneratedTokens => _generation.Generated;

    /// <inheritdoc/>
    public IAsyncEnumerable<string> InferAsync(
        string text, IInferenceParams? inferenceParams = null, CancellationToken token = default)
    {
        ArgumentNullException.ThrowIfNull(text);
        int[] prompt = Context.Weights.Tokenizer.Encode(text, _generation.IsEmpty && Context.Weights.Tokenizer.AddBos, parseSpecial: true);
        return _generation.RunAsync(prompt, inferenceParams ?? new InferenceParams(), token);
    }
}
