using Microsoft.Extensions.AI;

namespace LlamaKivi.Abstractions;

/// <summary>Executors as what other libraries work with.</summary>
public static class LLamaExecutorExtensions
{
    /// <summary>An executor as a chat client. Each call hands over the whole conversation; an executor that keeps its text reads only what is new of it.</summary>
    /// <param name="executor">Reads and writes. One call at a time.</param>
    /// <param name="historyTransform">How the conversation becomes text; null: by the model's own chat template, or as lines of "User: text" if it has none.</param>
    /// <param name="outputTransform">What is done to texts the model writes; null: nothing.</param>
    public static IChatClient AsChatClient(
        this ILLamaExecutor executor, IHistoryTransform? historyTransform = null, ITextStreamTransform? outputTransform = null) =>
        executor.AsChatClient(new ChatClientOptions { HistoryTransform = historyTransform, OutputTransform = outputTransform });

    /// <summary>Wraps an executor as a chat client with options.</summary>
    /// <param name="executor">The executor. It serves one call at a time.</param>
    /// <param name="options">Options of the client.</param>
    public static IChatClient AsChatClient(this ILLamaExecutor executor, ChatClientOptions options) =>
        new GeneratorChatClient(new ExecutorGenerator(executor ?? throw new ArgumentNullException(nameof(executor))), options ?? throw new ArgumentNullException(nameof(options)));
}
