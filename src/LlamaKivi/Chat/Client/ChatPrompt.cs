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

/// <summary>What a model reads for a conversation, and in what format it answers.</summary>
/// <param name="Text">The prompt.</param>
/// <param name="Format">The marks of the answer.</param>
/// <param name="OpenThought">The marks of the thought that the prompt ends in; null: none.</param>
/// <param name="Vocabulary">The model's vocabulary, with the control tokens that are marks of the answer as text.</param>
internal sealed record ChatPrompt(PromptText Text, AnswerFormat Format, ThoughtMarks? OpenThought, GrammarVocabulary Vocabulary)
{
    /// <summary>Writes the prompt of a conversation.</summary>
    /// <param name="templates">The model's templates.</param>
    /// <param name="options">The client's options: what writes conversations instead of templates, and whether special tokens are read from messages.</param>
    /// <param name="messages">The conversation.</param>
    /// <param name="request">The options.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="MissingTemplateException">There are tools, and no template that describes them.</exception>
    /// <exception cref="NotSupportedException">Content or an option cannot be given to the model.</exception>
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
            throw new MissingTemplateException("Tools are described to the model by its chat template, and this model's file has none, or another transform is set.");
        }

        request.TemplateVariables(null);
        var history = new ChatHistory([.. all.Select(message => new ChatHistory.Message(Role(message.Role), ChatMessages.PlainText(message)))]);
        return Of(templates, template, Transformed(templates, transform, history, options.ParseSpecialTokens));
    }

    // What another's transform writes is text of the program: it may put special tokens anywhere.
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
            // Some templates put arguments together with text.
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
