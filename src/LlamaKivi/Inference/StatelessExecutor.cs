using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Continues texts that have nothing to do with each other: each call starts with an empty context, and a sampling pipeline that was reset.</summary>
/// <remarks>Any number of calls may run at once, each with a context and a pipeline of its own. What came of a call is told by the <see cref="InferenceStream"/> that it returned.</remarks>
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

    /// <summary>The context of the call that started last; disposed of when that call ends. When several calls run, see <see cref="InferenceStream.Context"/>.</summary>
    public LLamaContext Context { get; private set; }

    /// <summary>False: the engine runs text models.</summary>
    public bool IsMultiModal => false;

    /// <summary>Whether a text is a user's message that the model's chat template is put around.</summary>
    public bool ApplyTemplate { get; init; }

    /// <summary>The system message of that template; null: none.</summary>
    public string? SystemMessage { get; init; }

    /// <summary>Timings of the call that ended last. When several calls run, see <see cref="InferenceStream.Timings"/>.</summary>
    public InferenceTimings Timings { get; private set; }

    /// <summary>Why the call that ended last stopped. When several calls run, see <see cref="InferenceStream.StopReason"/>.</summary>
    public StopReason StopReason { get; private set; }

    /// <summary>Reads a text and streams its continuation.</summary>
    /// <param name="prompt">What to read.</param>
    /// <param name="inferenceParams">How to continue; null: the defaults.</param>
    /// <param name="cancellationToken">Stops reading or writing.</param>
    /// <returns>Pieces of text, none of which ends inside a character.</returns>
    /// <exception cref="InvalidOperationException">Another call uses the sampling pipeline.</exception>
    public InferenceStream InferAsync(string prompt, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        new(null, call => RunAsync(call, prompt is null ? null : new PromptText(prompt), inferenceParams ?? new InferenceParams(), cancellationToken));

    /// <summary>Reads a prompt and streams its continuation.</summary>
    internal InferenceStream InferAsync(PromptText prompt, IInferenceParams inferenceParams, CancellationToken cancellationToken) =>
        new(null, call => RunAsync(call, prompt, inferenceParams, cancellationToken));

    /// <inheritdoc/>
    IAsyncEnumerable<string> ILLamaExecutor.InferAsync(string text, IInferenceParams? inferenceParams, CancellationToken token) =>
        InferAsync(text, inferenceParams, token);

    private async IAsyncEnumerable<string> RunAsync(
        InferenceStream call, PromptText? prompt, IInferenceParams inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(prompt);
        if (ApplyTemplate)
        {
            var template = new LLamaTemplate(_weights) { AddAssistant = true };
            if (SystemMessage is not null)
            {
                template.Add("system", SystemMessage);
            }

            prompt = new PromptText(template.Add("user", prompt.Value).Render(cancellationToken));
        }

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
