using System.Text.Json.Serialization;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Continues one growing text: each call appends to it and generates, with all earlier tokens in the cache.</summary>
/// <remarks>Each text after the first is a line: a line break is appended unless it ends with a line break or a control token.</remarks>
public class InteractiveExecutor(LLamaContext context, ILogger? logger = null) : StatefulExecutorBase(context, logger)
{
    /// <inheritdoc/>
    public override ExecutorBaseState GetStateData()
    {
        using ContextCall call = Look();
        var state = new InteractiveExecutorState { IsPromptRun = IsPromptRun };
        Fill(state);
        return state;
    }

    /// <inheritdoc/>
    public override Task LoadState(ExecutorBaseState data, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (data is not InteractiveExecutorState)
        {
            throw new ArgumentException("The state is not an InteractiveExecutor's.", nameof(data));
        }

        Restore(data);
        return Task.CompletedTask;
    }

    private protected override int[] Prepare(string text)
    {
        Tokenizer tokenizer = Context.Weights.Tokenizer;
        int[] tokens = tokenizer.Encode(text, IsPromptRun && tokenizer.AddBos, parseSpecial: true);
        bool isLine = IsPromptRun || tokens.Length == 0 || text.EndsWith('\n') || tokenizer.IsControl(tokens[^1]);
        return isLine ? tokens : tokenizer.Encode(text + "\n", addBos: false, parseSpecial: true);
    }

    /// <summary>State of an <see cref="InteractiveExecutor"/>.</summary>
    public class InteractiveExecutorState : ExecutorBaseState
    {
        /// <summary>Whether the executor has not read any text yet.</summary>
        [JsonPropertyName("is_prompt_run")]
        public bool IsPromptRun { get; set; }
    }
}
