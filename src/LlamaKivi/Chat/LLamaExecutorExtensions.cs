using Microsoft.Extensions.AI;

namespace LlamaKivi.Abstractions;

/// <summary>Adapts executors to Microsoft.Extensions.AI.</summary>
public static class LLamaExecutorExtensions
{
    /// <summary>Wraps an executor as a chat client. Each call passes the whole conversation; a stateful executor decodes only the new part.</summary>
    /// <param name="executor">The executor. It serves one call at a time.</param>
    /// <param name="historyTransform">Converts the conversation to text; null: the model's own chat template, or lines of "User: text" if the model has none.</param>
    /// <param name="outputTransform">Transforms the generated text; null: none.</param>
    public static IChatClient AsChatClient(
        this ILLamaExecutor executor, IHistoryTransform? historyTransform = null, ITextStreamTransform? outputTransform = null) =>
        executor.AsChatClient(new ChatClientOptions { HistoryTransform = historyTransform, OutputTransform = outputTransform });

    /// <summary>Wraps an executor as a chat client with options.</summary>
    /// <param name="executor">The executor. It serves one call at a time.</param>
    /// <param name="options">Options of the client.</param>
    public static IChatClient AsChatClient(this ILLamaExecutor executor, ChatClientOptions options) =>
        new GeneratorChatClient(new ExecutorGenerator(executor ?? throw new ArgumentNullException(nameof(executor))), options ?? throw new ArgumentNullException(nameof(options)));
}
