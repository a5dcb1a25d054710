using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Transformers;

/// <summary>Formats a conversation with the model's own chat template.</summary>
/// <param name="model">The model whose file has the template.</param>
/// <param name="withAssistant">Whether the text ends with the header of the assistant's answer.</param>
public class PromptTemplateTransformer(LLamaWeights model, bool withAssistant = true) : IHistoryTransform
{
    /// <summary>Renders the messages of a template.</summary>
    public static string ToModelPrompt(LLamaTemplate template)
    {
        ArgumentNullException.ThrowIfNull(template);
        return Encoding.UTF8.GetString(template.Apply());
    }

    /// <summary>
    /// Whether names of special tokens in messages are tokenized as special tokens in a <see cref="ChatSession"/> or chat client, as in llama.cpp. By default they are plain text: only the template
    /// itself writes special tokens.
    /// </summary>
    public bool ParseSpecialTokens { get; init; }

    internal bool WithAssistant => withAssistant;

    /// <inheritdoc/>
    public string HistoryToText(ChatHistory history) => Render(history, withAssistant, parseSpecialTokens: true).Value;

    internal PromptText Render(ChatHistory history, bool withAssistant, bool parseSpecialTokens)
    {
        ArgumentNullException.ThrowIfNull(history);
        var template = new LLamaTemplate(model) { AddAssistant = withAssistant };
        foreach (ChatHistory.Message message in history.Messages)
        {
            template.Add(message.AuthorRole.ToString().ToLowerInvariant(), message.Content);
        }

        return template.Render(null, null, parseSpecialTokens, CancellationToken.None);
    }

    /// <inheritdoc/>
    public ChatHistory TextToHistory(AuthorRole role, string text) => new([new ChatHistory.Message(role, text)]);

    /// <inheritdoc/>
    public IHistoryTransform Clone() => new PromptTemplateTransformer(model, withAssistant) { ParseSpecialTokens = ParseSpecialTokens };
}
