using System.Text;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Converts messages of Microsoft.Extensions.AI to the values that templates read.</summary>
internal static class ChatMessages
{
    /// <summary>Adds instructions: at the start of the system message if the conversation begins with one, otherwise as a system message.</summary>
    public static List<ChatMessage> WithInstructions(IEnumerable<ChatMessage> messages, string? instructions)
    {
        List<ChatMessage> all = [.. messages];
        if (string.IsNullOrEmpty(instructions))
        {
            return all;
        }

        if (all.Count > 0 && all[0].Role == ChatRole.System)
        {
            // A single message, because many templates reject a second system message.
            all[0] = new ChatMessage(ChatRole.System, [new TextContent(instructions + "\n"), .. all[0].Contents]);
        }
        else
        {
            all.Insert(0, new ChatMessage(ChatRole.System, instructions));
        }

        return all;
    }

    /// <summary>The text of a message for a prompt without a template.</summary>
    /// <exception cref="NotSupportedException">The message has content other than text.</exception>
    public static string PlainText(ChatMessage message)
    {
        Check(message, content => content is TextContent or TextReasoningContent or UsageContent, "text (tools need the model's own chat template)");
        return message.Text;
    }

    /// <summary>Converts messages to values of a template. Each tool result becomes a separate message.</summary>
    /// <exception cref="NotSupportedException">A message has content that templates cannot represent.</exception>
    /// <param name="messages">The messages.</param>
    /// <param name="argumentsAreText">Whether the arguments of calls are strings of JSON, as in OpenAI's API, instead of objects.</param>
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
                Check(message, content => content is FunctionResultContent or UsageContent || content is TextContent { Text.Length: 0 }, "only further tool results beside a tool result");
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
            "text, and in assistant messages thoughts and tool calls");
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

    // Templates expect the content of a tool message to be a string.
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
                    ?? throw new NotSupportedException($"{what} contains {content.GetType().Name}; only text is supported.")).Text)).ToString();
            case AIContent content:
                throw new NotSupportedException($"{what} is {content.GetType().Name}; only text is supported.");
            case var value:
                return ChatJson.ToText(ChatJson.ToElement(value, what));
        }
    }

    private static void Check(ChatMessage message, Func<AIContent, bool> canGive, string supported)
    {
        if (message.Contents.FirstOrDefault(content => !canGive(content)) is { } content)
        {
            throw ErrorOption.Mark(
                new NotSupportedException($"{content.GetType().Name} in a message of role '{message.Role}' is not supported; supported: {supported}."), ErrorOption.Messages);
        }
    }
}
