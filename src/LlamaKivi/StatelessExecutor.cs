using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Continues texts that have nothing to do with each other: each call starts with an empty context.</summary>
public class StatelessExecutor : ILLamaExecutor
{
    private readonly LLamaWeights _weights;
    private readonly IContextParams _params;
    private readonly ILogger? _logger;

    /// <summary>Names the model and what contexts to create.</summary>
    public StatelessExecutor(LLamaWeights weights, IContextParams @params, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(@params);
        _weights = weights;
        _params = @params;
        _logger = logger;
        Context = weights.CreateContext(@params, logger);  // a parameter that does not fit is reported here
        Context.Dispose();
    }

    /// <summary>The context of the last inference; disposed when that ends.</summary>
    public LLamaContext Context { get; private set; }

    /// <summary>False: the engine runs text models.</summary>
    public bool IsMultiModal => false;

    /// <summary>Whether a text is a user's message that the model's chat template is put around.</summary>
    public bool ApplyTemplate { get; init; }

    /// <summary>The system message of that template; null: none.</summary>
    public string? SystemMessage { get; init; }

    /// <summary>How long the last inference took.</summary>
    public InferenceTimings Timings { get; private set; }

    /// <summary>Why the last inference ended.</summary>
    public StopReason StopReason { get; private set; }

    /// <summary>Reads a text and streams its continuation.</summary>
    /// <param name="prompt">What to read.</param>
    /// <param name="inferenceParams">How to continue; null: the defaults.</param>
    /// <param name="cancellationToken">Stops reading or writing.</param>
    /// <returns>Pieces of text, none of which ends inside a character.</returns>
    public async IAsyncEnumerable<string> InferAsync(
        string prompt, IInferenceParams? inferenceParams = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        if (ApplyTemplate)
        {
            var template = new LLamaTemplate(_weights) { AddAssistant = true };
            if (SystemMessage is not null)
            {
                template.Add("system", SystemMessage);
            }

            prompt = template.Add("user", prompt).Render(cancellationToken: cancellationToken);
        }

        using LLamaContext context = _weights.CreateContext(_params, _logger);
        Context = context;
        var generation = new Generation(context, _logger);
        int[] tokens = _weights.Tokenizer.Encode(prompt, _weights.Tokenizer.AddBos, parseSpecial: true);
        try
        {
            await foreach (string piece in generation.RunAsync(Prompt.Next(tokens), inferenceParams ?? new InferenceParams(), cancellationToken).ConfigureAwait(false))
            {
                yield return piece;
            }
        }
        finally
        {
            Timings = generation.Timings;
            StopReason = generation.StopReason;
        }
    }

    /// <inheritdoc/>
    IAsyncEnumerable<string> ILLamaExecutor.InferAsync(string text, IInferenceParams? inferenceParams, CancellationToken token) =>
        InferAsync(text, inferenceParams, token);
}
