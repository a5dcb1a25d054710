using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Continues independent texts: each call has a new context and resets the sampling pipeline.</summary>
/// <remarks>Calls may run concurrently, each with its own context; give each its own pipeline. Results of a call are on its <see cref="InferenceStream"/>.</remarks>
public class StatelessExecutor : ILLamaExecutor
{
    private readonly LLamaWeights _weights;
    private readonly IContextParams _params;
    private readonly ILogger? _logger;

    /// <summary>Creates an executor for a model and the parameters of its contexts.</summary>
    public StatelessExecutor(LLamaWeights weights, IContextParams @params, ILogger? logger = null)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(@params);
        _weights = weights;
        _params = @params;
        _logger = logger;
        Context = weights.CreateContext(@params, logger);  // reports invalid parameters here
        Context.Dispose();
    }

    /// <summary>Context of the call that started last, disposed of when that call ends. For concurrent calls see <see cref="InferenceStream.Context"/>.</summary>
    public LLamaContext Context { get; private set; }

    /// <summary>False: the engine supports only text.</summary>
    public bool IsMultiModal => false;

    /// <summary>Whether to format each text as a user message with the model's chat template. A chat client and a <see cref="ChatSession"/> format conversations themselves.</summary>
    public bool ApplyTemplate { get; init; }

    /// <summary>System message for <see cref="ApplyTemplate"/>; null: none.</summary>
    public string? SystemMessage { get; init; }

    /// <summary>Timings of the call that ended last. For concurrent calls see <see cref="InferenceStream.Timings"/>.</summary>
    public InferenceTimings Timings { get; private set; }

    /// <summary>Stop reason of the call that ended last. For concurrent calls see <see cref="InferenceStream.StopReason"/>.</summary>
    public StopReason StopReason { get; private set; }

    /// <summary>Prefills a text and streams its continuation.</summary>
    /// <param name="prompt">The prompt.</param>
    /// <param name="inferenceParams">Inference parameters; null: defaults.</param>
    /// <param name="cancellationToken">Cancels prefill or generation.</param>
    /// <returns>Pieces of text; no piece ends inside a character.</returns>
    /// <exception cref="InvalidOperationException">Another call uses the sampling pipeline.</exception>
    public InferenceStream InferAsync(string prompt, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        prompt is not null && MarkedInferenceParams.PromptOf(prompt, inferenceParams) is { } written
            ? InferAsync(written, inferenceParams!, cancellationToken)
            : new(null, call => RunAsync(call, Templated(prompt, cancellationToken), inferenceParams ?? new InferenceParams(), cancellationToken));

    /// <summary>Reads a prompt that a chat client or a session wrote and streams its continuation.</summary>
    internal InferenceStream InferAsync(PromptText prompt, IInferenceParams inferenceParams, CancellationToken cancellationToken) =>
        new(null, call => RunAsync(call, prompt, inferenceParams, cancellationToken));

    /// <inheritdoc/>
    IAsyncEnumerable<string> ILLamaExecutor.InferAsync(string text, IInferenceParams? inferenceParams, CancellationToken token) =>
        InferAsync(text, inferenceParams, token);

    private PromptText? Templated(string? text, CancellationToken cancellationToken)
    {
        if (!ApplyTemplate || text is null)
        {
            return text is null ? null : new PromptText(text);
        }

        var template = new LLamaTemplate(_weights) { AddAssistant = true };
        if (SystemMessage is not null)
        {
            template.Add("system", SystemMessage);
        }

        return new PromptText(template.Add("user", text).Render(cancellationToken));
    }

    private async IAsyncEnumerable<string> RunAsync(
        InferenceStream call, PromptText? prompt, IInferenceParams inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        using LLamaContext context = _weights.CreateContext(_params, _logger);
        Context = context;
        call.Context = context;
        using ContextTurn turn = context.Handle.TakeTurn($"{nameof(StatelessExecutor)}.{nameof(InferAsync)}");
        var generation = new Generation(context, _logger) { ResetsPipeline = true };
        int[] tokens = _weights.Tokenizer.Encode(prompt, _weights.Tokenizer.AddBos);
        try
        {
            await foreach (string piece in generation.RunAsync(turn, call.Results, Prompt.Next(tokens), inferenceParams, cancellationToken).ConfigureAwait(false))
            {
                yield return piece;
            }
        }
        finally
        {
            Timings = call.Timings;
            StopReason = call.StopReason;
        }
    }
}
