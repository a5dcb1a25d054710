using System.Runtime.ExceptionServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Templates;
using LlamaKivi.Templates.Jinja;
using LlamaKivi.Tokenization;
using LlamaKivi.Transformers;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>The prompt of a conversation, and the format of its answer.</summary>
/// <param name="Text">The prompt.</param>
/// <param name="Format">The marks of calls and thoughts in the answer.</param>
/// <param name="OpenThought">The marks of a thought that the prompt opens; null: none.</param>
/// <param name="Vocabulary">The model's vocabulary, in which the control tokens of the format's marks have text.</param>
internal sealed record ChatPrompt(PromptText Text, AnswerFormat Format, ThoughtMarks? OpenThought, GrammarVocabulary Vocabulary)
{
    /// <summary>Writes the prompt of a conversation.</summary>
    /// <param name="templates">The model's templates.</param>
    /// <param name="options">The client's options: its history transform, and whether special tokens in messages are parsed.</param>
    /// <param name="messages">The conversation.</param>
    /// <param name="request">The call's options.</param>
    /// <param name="cancellationToken">Cancels the rendering.</param>
    /// <exception cref="MissingTemplateException">Tools were given, but no template describes them.</exception>
    /// <exception cref="NotSupportedException">A content or an option is not supported.</exception>
    public static ChatPrompt Write(
        ChatTemplate.Cache templates, ChatClientOptions options, IEnumerable<ChatMessage> messages, ChatRequest request, CancellationToken cancellationToken)
    {
        IHistoryTransform? transform = options.HistoryTransform;
        List<ChatMessage> all = ChatMessages.WithInstructions(messages, request.Instructions);
        bool hasTools = request.Tools.Count > 0;
        ChatTemplate? template = templates.Find(hasTools);
        if (transform is null && template is not null)
        {
            if (hasTools)
            {
                template.CheckReadsTools();
            }

            return Of(templates, template, Render(template, all, request.TemplateVariables(template.Text), options.ParseSpecialTokens, cancellationToken));
        }

        if (hasTools)
        {
            throw new MissingTemplateException("Tools need the model's chat template, which describes them to the model. Either this model's file has no template, or the client has a history transform; remove the transform, use a model with a template, or give no tools.");
        }

        request.TemplateVariables(null);
        var history = new ChatHistory([.. all.Select(message => new ChatHistory.Message(Role(message.Role), ChatMessages.PlainText(message)))]);
        return Of(templates, template, Transformed(templates, transform, history, options.ParseSpecialTokens));
    }

    // A custom transform belongs to the program and may write special tokens anywhere.
    private static PromptText Transformed(ChatTemplate.Cache templates, IHistoryTransform? transform, ChatHistory history, bool parseSpecialTokens)
    {
        if (transform?.GetType() == typeof(PromptTemplateTransformer))
        {
            var template = (PromptTemplateTransformer)transform;
            return template.Render(history, template.WithAssistant, parseSpecialTokens || template.ParseSpecialTokens);
        }

        var provenance = new Provenance(templates.PlainMarks);
        if (!parseSpecialTokens && (transform is null || transform.GetType() == typeof(LLamaTransforms.DefaultHistoryTransform)))
        {
            history = new ChatHistory([.. history.Messages.Select(message => new ChatHistory.Message(message.AuthorRole, provenance.Mark(message.Content)))]);
        }

        return provenance.Read(transform is null ? new LLamaTransforms.DefaultHistoryTransform().HistoryToText(history) + "Assistant:" : transform.HistoryToText(history));
    }

    private static PromptText Render(
        ChatTemplate template, List<ChatMessage> messages, Dictionary<string, object?> variables, bool parseSpecialTokens, CancellationToken cancellationToken)
    {
        try
        {
            return template.Render(ChatMessages.ToTemplate(messages, argumentsAreText: false), variables, parseSpecialTokens, cancellationToken);
        }
        catch (TemplateException e) when (!e.IsRaised && messages.Exists(message => message.Contents.Any(content => content is FunctionCallContent)))
        {
            // Some templates concatenate arguments with text, so they need strings.
            try
            {
                return template.Render(ChatMessages.ToTemplate(messages, argumentsAreText: true), variables, parseSpecialTokens, cancellationToken);
            }
            catch (TemplateException)
            {
                ExceptionDispatchInfo.Throw(e);
                throw;
            }
        }
    }

    private static ChatPrompt Of(ChatTemplate.Cache templates, ChatTemplate? template, PromptText text) => template is null
        ? new ChatPrompt(text, AnswerFormat.Plain, null, templates.PlainVocabulary)
        : new ChatPrompt(text, template.Format, template.Format.OpenAtEnd(text.Value), template.Vocabulary);

    private static AuthorRole Role(ChatRole role) =>
        role == ChatRole.System ? AuthorRole.System : role == ChatRole.User ? AuthorRole.User : role == ChatRole.Assistant ? AuthorRole.Assistant : AuthorRole.Unknown;
}
