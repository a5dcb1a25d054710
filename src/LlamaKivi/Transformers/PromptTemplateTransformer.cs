using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi.Transformers;

/// <summary>A conversation as the model's own chat template writes it.</summary>
/// <param name="model">The model whose file has the template.</param>
/// <param name="withAssistant">Whether the text ends where the model's answer begins.</param>
public class PromptTemplateTransformer(LLamaWeights model, bool withAssistant = true) : IHistoryTransform
{
    /// <summary>The text of a template's messages.</summary>
    public static string ToModelPrompt(LLamaTemplate template)
    {
        ArgumentNullException.ThrowIfNull(template);
        return Encoding.UTF8.GetString(template.Apply());
    }

    /// <inheritdoc/>
    public string HistoryToText(ChatHistory history)
    {
        ArgumentNullException.ThrowIfNull(history);
        var template = new LLamaTemplate(model) { AddAssistant = withAssistant };
        foreach (ChatHistory.Message message in history.Messages)
        {
            template.Add(message.AuthorRole.ToString().ToLowerInvariant(), message.Content);
        }

        return ToModelPrompt(template);
    }

    // The text between the end of the last answer and the start of the next: what the model has not read of a conversation whose last message is new.
    // ended: whether the model wrote the end of its answer itself.
    internal string NextTurn(ChatHistory history, bool ended)
    {
        string whole = HistoryToText(history);
        if (history.Messages is not [.., { AuthorRole: AuthorRole.Assistant } answer, _]
            || answer.Content.Length == 0 || whole.LastIndexOf(answer.Content, StringComparison.Ordinal) is not (>= 0 and var at))
        {
            return HistoryToText(new ChatHistory([history.Messages[^1]]));
        }

        string rest = whole[(at + answer.Content.Length)..];
        string? end = ended ? model.Tokenizer.EndTokens.Select(model.Tokenizer.GetText).FirstOrDefault(text => rest.TrimStart().StartsWith(text, StringComparison.Ordinal)) : null;
        return end is null ? rest : rest[(rest.IndexOf(end, StringComparison.Ordinal) + end.Length)..];
    }

    /// <inheritdoc/>
    public ChatHistory TextToHistory(AuthorRole role, string text) => new([new ChatHistory.Message(role, text)]);

    /// <inheritdoc/>
    public IHistoryTransform Clone() => new PromptTemplateTransformer(model, withAssistant);
}
