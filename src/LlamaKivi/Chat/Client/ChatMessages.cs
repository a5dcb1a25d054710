using System.Text;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Messages of Microsoft.Extensions.AI as templates know them.</summary>
internal static class ChatMessages
{
    /// <summary>Puts instructions before what the first message, if it is a system message, says.</summary>
    public static List<ChatMessage> WithInstructions(IEnumerable<ChatMessage> messages, string? instructions)
    {
        List<ChatMessage> all = [.. messages];
        if (string.IsNullOrEmpty(instructions))
        {
            return all;
        }

        if (all.Count > 0 && all[0].Role == ChatRole.System)
        {
            // One message: many templates refuse a second system message.
            all[0] = new ChatMessage(ChatRole.System, [new TextContent(instructions + "\n"), .. all[0].Contents]);
        }
        else
        {
            all.Insert(0, new ChatMessage(ChatRole.System, instructions));
        }

        return all;
    }

    /// <summary>The text of a message that goes to the model without a template.</summary>
    /// <exception cref="NotSupportedException">The message has other content than text.</exception>
    public static string PlainText(ChatMessage message)
    {
        Check(message, content => content is TextContent or TextReasoningContent or UsageContent, "text; tools need the model's own chat template");
        return message.Text;
    }

    /// <summary>Messages as values of a template. The results of tools are messages of their own.</summary>
    /// <exception cref="NotSupportedException">A message has content that no template can give to a model.</exception>
    /// <param name="messages">The messages.</param>
    /// <param name="argumentsAreText">Whether the arguments of calls are JSON texts, as OpenAI's API has them; otherwise they are values.</param>
    public static IEnumerable<object?> ToTemplate(IReadOnlyList<ChatMessage> messages, bool argumentsAreText)
    {
        var names = new Dictionary<string, string>(StringComparer.Ordinal);  // [call id]
        foreach (ChatMessage message in messages)
        {
            foreach (FunctionCallContent call in message.Contents.OfType<FunctionCallContent>())
            {
                names[call.CallId] = call.Name;
            }

            if (message.Contents.Any(content => content is FunctionResultContent))
            {
                Check(message, content => content is FunctionResultContent or UsageContent || content is TextContent { Text.Length: 0 }, "results of tools beside such a result");
                foreach (FunctionResultContent result in message.Contents.OfType<FunctionResultContent>())
                {
                    yield return Result(result, names.GetValueOrDefault(result.CallId));
                }
            }
            else
            {
                yield return Message(message, argumentsAreText);
            }
        }
    }

    private static Dictionary<string, object?> Message(ChatMessage message, bool argumentsAreText)
    {
        Check(
            message,
            content => content is TextContent or UsageContent || (message.Role == ChatRole.Assistant && content is TextReasoningContent or FunctionCallContent),
            "text, and thoughts and calls of tools of the assistant");
        var variables = new Dictionary<string, object?>(StringComparer.Ordinal) { ["role"] = message.Role.Value, ["content"] = message.Text };
        if (message.AuthorName is { Length: > 0 } author)
        {
            variables["name"] = author;
        }

        string thoughts = string.Concat(message.Contents.OfType<TextReasoningContent>().Select(thought => thought.Text));
        if (thoughts.Length > 0)
        {
            variables["reasoning_content"] = thoughts;
        }

        FunctionCallContent[] calls = [.. message.Contents.OfType<FunctionCallContent>()];
        if (calls.Length > 0)
        {
            variables["tool_calls"] = calls.Select(call => (object?)new Dictionary<string, object?>(StringComparer.Ordinal)
            {
                ["id"] = call.CallId,
                ["type"] = "function",
                ["function"] = new Dictionary<string, object?>(StringComparer.Ordinal)
                {
                    ["name"] = call.Name,
                    ["arguments"] = argumentsAreText ? ChatJson.ToText(ChatJson.ToElement(Arguments(call), "")) : Arguments(call),
                },
            });
        }

        return variables;
    }

    private static Dictionary<string, object?> Arguments(FunctionCallContent call) => (call.Arguments ?? new Dictionary<string, object?>(StringComparer.Ordinal)).ToDictionary(
        item => item.Key, item => (object?)ChatJson.ToElement(item.Value, $"The argument '{item.Key}' of the call '{call.Name}'"), StringComparer.Ordinal);

    private static Dictionary<string, object?> Result(FunctionResultContent result, string? name)
    {
        var variables = new Dictionary<string, object?>(StringComparer.Ordinal) { ["role"] = "tool", ["tool_call_id"] = result.CallId, ["content"] = ResultText(result, name) };
        if (name is not null)
        {
            variables["name"] = name;
        }

        return variables;
    }

    // Templates take the content of a tool's message for text.
    private static string ResultText(FunctionResultContent result, string? name)
    {
        string what = $"The result of the call '{name ?? result.CallId}'";
        switch (result.Result ?? result.Exception)
        {
            case null:
                return "";
            case string text:
                return text;
            case Exception e:
                return e.Message;
            case TextContent text:
                return text.Text;
            case IEnumerable<AIContent> contents:
                return contents.Aggregate(new StringBuilder(), (text, content) => text.Append((content as TextContent
                    ?? throw new NotSupportedException($"{what} has {content.GetType().Name}; the model reads text.")).Text)).ToString();
            case AIContent content:
                throw new NotSupportedException($"{what} is {content.GetType().Name}; the model reads text.");
            case var value:
                return ChatJson.ToText(ChatJson.ToElement(value, what));
        }
    }

    private static void Check(ChatMessage message, Func<AIContent, bool> canGive, string supported)
    {
        if (message.Contents.FirstOrDefault(content => !canGive(content)) is { } content)
        {
            throw new NotSupportedException($"{content.GetType().Name} in a message of the role '{message.Role}' cannot be given to the model; what can is {supported}.");
        }
    }
}
