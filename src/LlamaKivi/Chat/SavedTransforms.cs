using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Transformers;

namespace LlamaKivi;

/// <summary>Placeholders in saved sessions for transforms that cannot be serialized: those that need a model, and those of other libraries.</summary>
internal static class SavedTransforms
{
    /// <summary>Replaces a transform that cannot be serialized by its placeholder.</summary>
    public static IHistoryTransform ToSave(IHistoryTransform transform) =>
        IsOwn(transform) ? transform
        : transform.GetType() == typeof(PromptTemplateTransformer) ? SavedTemplate.Of((PromptTemplateTransformer)transform)
        : new ForeignTransform(transform.GetType().FullName);

    /// <inheritdoc cref="ToSave(IHistoryTransform)"/>
    public static ITextTransform ToSave(ITextTransform transform) => IsOwn(transform) ? transform : new ForeignTransform(transform.GetType().FullName);

    /// <inheritdoc cref="ToSave(IHistoryTransform)"/>
    public static ITextStreamTransform ToSave(ITextStreamTransform transform) => IsOwn(transform) ? transform : new ForeignTransform(transform.GetType().FullName);

    /// <summary>Replaces the placeholders of a state by transforms of the session that loads it.</summary>
    /// <exception cref="InvalidOperationException">The session lacks one of the transforms.</exception>
    public static (IHistoryTransform History, List<ITextTransform> Input, ITextStreamTransform Output) Restore(SessionState state, ChatSession session)
    {
        var left = new List<ITextTransform>(session.InputTransformPipeline);
        IHistoryTransform history = state.HistoryTransform switch
        {
            SavedTemplate template => template.For(session.Executor.Context.Weights),
            ForeignTransform foreign => Own(foreign, session.HistoryTransform, nameof(ChatSession.WithHistoryTransform)),
            var known => known.Clone(),
        };
        var input = new List<ITextTransform>();
        foreach (ITextTransform transform in state.InputTransformPipeline)
        {
            ITextTransform? own = transform is ForeignTransform named ? left.Find(other => Is(named, other)) : null;
            left.Remove(own!);
            input.Add(transform is ForeignTransform foreign ? Own(foreign, own, nameof(ChatSession.AddInputTransform)) : transform.Clone());
        }

        ITextStreamTransform output = state.OutputTransform is ForeignTransform other
            ? Own(other, session.OutputTransform, nameof(ChatSession.WithOutputTransform))
            : state.OutputTransform.Clone();
        return (history, input, output);
    }

    private static bool IsOwn(object transform) => transform.GetType().DeclaringType == typeof(LLamaTransforms) || transform is ForeignTransform or SavedTemplate;

    private static bool Is(ForeignTransform saved, object? own) => own is not null && (saved.Type is null || own.GetType().FullName == saved.Type);

    private static T Own<T>(ForeignTransform saved, T? own, string method)
        where T : class => Is(saved, own) ? own! : throw saved.Missing(method);
}

/// <summary>Placeholder of the model's chat template.</summary>
internal sealed class SavedTemplate(bool withAssistant, bool parseSpecialTokens = false) : IHistoryTransform
{
    public bool WithAssistant => withAssistant;

    public bool ParseSpecialTokens => parseSpecialTokens;

    public static SavedTemplate Of(PromptTemplateTransformer transform) => new(transform.WithAssistant, transform.ParseSpecialTokens);

    public PromptTemplateTransformer For(LLamaWeights weights) => new(weights, withAssistant) { ParseSpecialTokens = parseSpecialTokens };

    public string HistoryToText(ChatHistory history) => throw NotLoaded();

    public ChatHistory TextToHistory(AuthorRole role, string text) => throw NotLoaded();

    public IHistoryTransform Clone() => this;

    private static InvalidOperationException NotLoaded() =>
        new($"The saved session uses the model's chat template. Load the state with {nameof(ChatSession)}.{nameof(ChatSession.LoadSession)}, which knows the model.");
}

/// <summary>Placeholder of a transform of another library.</summary>
/// <param name="type">Type of the transform; null: unknown (older files do not name it).</param>
internal sealed class ForeignTransform(string? type) : IHistoryTransform, ITextTransform, ITextStreamTransform
{
    public string? Type => type;

    public string HistoryToText(ChatHistory history) => throw Missing(nameof(ChatSession.WithHistoryTransform));

    public ChatHistory TextToHistory(AuthorRole role, string text) => throw Missing(nameof(ChatSession.WithHistoryTransform));

    public string Transform(string text) => throw Missing(nameof(ChatSession.AddInputTransform));

    public IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens) => throw Missing(nameof(ChatSession.WithOutputTransform));

    IHistoryTransform IHistoryTransform.Clone() => this;

    ITextTransform ITextTransform.Clone() => this;

    ITextStreamTransform ITextStreamTransform.Clone() => this;

    public InvalidOperationException Missing(string method) => new(
        $"The session was saved with the transform {type ?? "of another library"}, which cannot be serialized. Set it with {method} before loading the session, or load with loadTransforms: false.");
}
