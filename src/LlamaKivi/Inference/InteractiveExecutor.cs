using System.Text.Json.Serialization;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Continues one growing text: each call reads more of it and writes on, with all that came before in the cache.</summary>
/// <remarks>A text after the first is a line: where it ends neither with a line break nor with a control token, a line break follows it.</remarks>
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
            throw new ArgumentException("The state is not of an InteractiveExecutor.", nameof(data));
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

    /// <summary>Where the executor is in its text.</summary>
    public class InteractiveExecutorState : ExecutorBaseState
    {
        /// <summary>Whether no text was read yet.</summary>
        [JsonPropertyName("is_prompt_run")]
        public bool IsPromptRun { get; set; }
    }
}
