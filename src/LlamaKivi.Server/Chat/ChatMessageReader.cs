using System.Text;
using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>Reads the messages of OpenAI's chat API.</summary>
internal static class ChatMessageReader
{
    /// <summary>Reads <c>messages</c>.</summary>
    public static List<ChatMessage> Read(JsonFields body)
    {
        IReadOnlyList<(JsonElement Value, string Path)> items = body.Items("messages") ?? throw body.Missing("messages");
        return items.Count == 0
            ? throw ApiException.Bad("messages", "messages is empty; give at least one message.", "empty_array")
            : [.. items.Select(item => Message(new JsonFields(item.Value, item.Path)))];
    }

    /// <summary>Reads text: a string, or an array of text parts.</summary>
    /// <param name="message">The object.</param>
    /// <param name="name">Name of its field.</param>
    /// <param name="types">Types of text parts.</param>
    public static string? Text(JsonFields message, string name, params ReadOnlySpan<string> types)
    {
        if (!message.TryGet(name, out JsonElement content))
        {
            return null;
        }

        if (content.ValueKind == JsonValueKind.String)
        {
            return message.Text(name);
        }

        if (content.ValueKind != JsonValueKind.Array)
        {
            throw JsonFields.Wrong(message.Path(name), content, "a string or an array of text parts");
        }

        var text = new StringBuilder();
        foreach ((JsonElement value, string path) in JsonFields.Items(content, message.Path(name)))
        {
            var part = new JsonFields(value, path);
            string type = part.RequiredText("type");
            if (!types.Contains(type))
            {
                throw ApiException.Bad(part.Path("type"), $"{part.Path("type")} is '{type}'; this server supports text alone.", "unsupported_value");
            }

            text.Append(part.RequiredText(type == "refusal" ? "refusal" : "text"));
        }

        return text.ToString();
    }

    /// <summary>Parses the arguments of a call, JSON in a string.</summary>
    public static Dictionary<string, object?> Arguments(JsonFields call)
    {
        string text = call.RequiredText("arguments");
        if (text.Length == 0)
        {
            return new Dictionary<string, object?>(StringComparer.Ordinal);
        }

        string path = call.Path("arguments");
        return RequestJson.Parse(text, path) is { ValueKind: JsonValueKind.Object } arguments
            ? ChatCall.Arguments(arguments)
            : throw ApiException.Bad(path, $"{path} is not a JSON object.", "invalid_value");
    }

    private static ChatMessage Message(JsonFields message)
    {
        string role = message.OneOf("role", "system", "developer", "user", "assistant", "tool") ?? throw message.Missing("role");
        ChatMessage result = role switch
        {
            "assistant" => Assistant(message),
            "tool" => new ChatMessage(ChatRole.Tool, [new FunctionResultContent(message.RequiredText("tool_call_id"), Text(message, "content", "text") ?? throw message.Missing("content"))]),
            "user" => new ChatMessage(ChatRole.User, Text(message, "content", "text") ?? throw message.Missing("content")),
            _ => new ChatMessage(ChatRole.System, Text(message, "content", "text") ?? throw message.Missing("content")),
        };
        result.AuthorName = message.Text("name");
        message.RefuseUnknown();
        return result;
    }

    private static ChatMessage Assistant(JsonFields message)
    {
        message.Accept("refusal", "annotations", "audio", "function_call");
        var contents = new List<AIContent>();
        if (message.Text("reasoning_content") is { Length: > 0 } thoughts)
        {
            contents.Add(new TextReasoningContent(thoughts));
        }

        string? text = Text(message, "content", "text", "refusal");
        if (text is { Length: > 0 })
        {
            contents.Add(new TextContent(text));
        }

        IReadOnlyList<(JsonElement Value, string Path)> calls = message.Items("tool_calls") ?? [];
        if (text is null && calls.Count == 0)
        {
            throw ApiException.Bad(message.Path("content"), $"{message.Path("content")} is missing; an assistant message has content or tool_calls.", "missing_required_parameter");
        }

        foreach ((JsonElement value, string path) in calls)
        {
            var call = new JsonFields(value, path);
            call.Accept("type", "index");
            JsonFields function = call.Object("function") ?? throw call.Missing("function");
            contents.Add(new FunctionCallContent(call.RequiredText("id"), function.RequiredText("name"), Arguments(function)));
            function.RefuseUnknown();
            call.RefuseUnknown();
        }

        return new ChatMessage(ChatRole.Assistant, contents);
    }
}
