using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>A request of Anthropic's <c>/v1/messages</c>.</summary>
/// <param name="Call">The chat call.</param>
/// <param name="Stream">Whether the answer is streamed.</param>
internal sealed record MessagesRequest(ChatCall Call, bool Stream)
{
    /// <summary>Reads a request.</summary>
    /// <param name="body">The body.</param>
    /// <param name="server">The server's options.</param>
    /// <param name="isCount">Whether tokens are counted alone, which needs no <c>max_tokens</c>.</param>
    public static MessagesRequest Read(JsonFields body, LlamaKiviServerOptions server, bool isCount)
    {
        body.Accept("model", "metadata", "service_tier", "cache_control");
        var options = new SamplingChatOptions
        {
            Temperature = body.Number("temperature", 0, 1),
            TopP = body.Number("top_p", 0, 1),
            TopK = (int?)body.Whole("top_k", 0, int.MaxValue),
            StopSequences = SamplingFields.Stops(body, "stop_sequences"),
            MaxOutputTokens = isCount ? null : SamplingFields.MaxTokens(body.Whole("max_tokens", 1, int.MaxValue) ?? throw body.Missing("max_tokens"), server),
        };
        bool stream = body.Flag("stream") ?? false;
        ReadTools(body, options);
        ReadThinking(body, options);
        List<ChatMessage> messages = ReadMessages(body);
        body.RefuseUnknown();
        options.StreamsCalls = stream;
        return new MessagesRequest(new ChatCall(messages, options), stream);
    }

    private static void ReadTools(JsonFields body, ChatOptions options)
    {
        var tools = new List<AITool>();
        foreach ((JsonElement value, string path) in body.Items("tools") ?? [])
        {
            var tool = new JsonFields(value, path);
            tool.Accept("cache_control", "strict", "eager_input_streaming");
            tool.OneOf("type", "custom");
            tools.Add(ChatCall.Tool(tool.RequiredName("name"), tool.Text("description"), new JsonFields(tool.Required("input_schema"), tool.Path("input_schema")).Element));
            tool.RefuseUnknown();
        }

        options.Tools = tools.Count > 0 ? tools : null;
        if (body.Object("tool_choice") is { } choice)
        {
            string type = choice.OneOf("type", "auto", "any", "tool", "none") ?? throw choice.Missing("type");
            options.ToolMode = type switch
            {
                "any" => ChatToolMode.RequireAny,
                "tool" => ChatToolMode.RequireSpecific(choice.RequiredName("name")),
                "none" => ChatToolMode.None,
                _ => ChatToolMode.Auto,
            };
            options.AllowMultipleToolCalls = choice.Flag("disable_parallel_tool_use") is true ? false : null;
            choice.RefuseUnknown();
        }

        ChatCompletionRequest.CheckChoice(options);
    }

    private static void ReadThinking(JsonFields body, ChatOptions options)
    {
        if (body.Object("thinking") is { } thinking)
        {
            thinking.Accept("budget_tokens", "display");
            string type = thinking.OneOf("type", "enabled", "disabled", "adaptive") ?? throw thinking.Missing("type");
            options.Reasoning = type == "enabled" ? new ReasoningOptions { Effort = ReasoningEffort.High } : null;
            thinking.RefuseUnknown();
        }
    }

    private static List<ChatMessage> ReadMessages(JsonFields body)
    {
        var messages = new List<ChatMessage>();
        if (body.TryGet("system", out _))
        {
            messages.Add(new ChatMessage(ChatRole.System, Text(body, "system")));
        }

        IReadOnlyList<(JsonElement Value, string Path)> items = body.Items("messages") ?? throw body.Missing("messages");
        if (items.Count == 0)
        {
            throw ApiException.Bad("messages", "messages is empty; give at least one message.");
        }

        foreach ((JsonElement value, string path) in items)
        {
            var message = new JsonFields(value, path);
            bool isAssistant = (message.OneOf("role", "user", "assistant") ?? throw message.Missing("role")) == "assistant";
            List<AIContent> contents = ReadContents(message, isAssistant);
            message.RefuseUnknown();

            // Templates take the results of tools as messages of their own.
            AIContent[] results = [.. contents.Where(content => content is FunctionResultContent)];
            if (results.Length > 0)
            {
                messages.Add(new ChatMessage(ChatRole.Tool, results));
                contents.RemoveAll(content => content is FunctionResultContent);
            }

            if (contents.Count > 0)
            {
                messages.Add(new ChatMessage(isAssistant ? ChatRole.Assistant : ChatRole.User, contents));
            }
        }

        return messages;
    }

    private static List<AIContent> ReadContents(JsonFields message, bool isAssistant)
    {
        JsonElement content = message.Required("content");
        if (content.ValueKind == JsonValueKind.String)
        {
            return [new TextContent(message.Text("content"))];
        }

        var contents = new List<AIContent>();
        foreach ((JsonElement value, string path) in JsonFields.Items(content, message.Path("content")))
        {
            var block = new JsonFields(value, path);
            block.Accept("cache_control", "citations", "signature", "caller");
            string type = block.RequiredText("type");
            contents.Add((type, isAssistant) switch
            {
                ("text", _) => new TextContent(block.RequiredText("text")),
                ("thinking", true) => new TextReasoningContent(block.RequiredText("thinking")),
                ("tool_use", true) => new FunctionCallContent(
                    block.RequiredText("id"), block.RequiredText("name"), ChatCall.Arguments(new JsonFields(block.Required("input"), block.Path("input")).Element)),
                ("tool_result", false) => Result(block),
                _ => throw ApiException.Bad(block.Path("type"), $"{block.Path("type")} is '{type}', which a message of this role cannot have here; this server supports text and tools."),
            });
            block.RefuseUnknown();
        }

        return contents.Count > 0 ? contents : throw ApiException.Bad(message.Path("content"), $"{message.Path("content")} is empty.");
    }

    private static FunctionResultContent Result(JsonFields block)
    {
        block.Accept("is_error");
        return new FunctionResultContent(block.RequiredText("tool_use_id"), block.TryGet("content", out _) ? Text(block, "content") : "");
    }

    // A string, or text blocks.
    private static string Text(JsonFields fields, string name)
    {
        JsonElement value = fields.Required(name);
        if (value.ValueKind == JsonValueKind.String)
        {
            return fields.Text(name)!;
        }

        return string.Join('\n', JsonFields.Items(value, fields.Path(name)).Select(item =>
        {
            var block = new JsonFields(item.Value, item.Path);
            block.Accept("cache_control", "citations");
            if (block.OneOf("type", "text") is null)
            {
                throw block.Missing("type");
            }

            string text = block.RequiredText("text");
            block.RefuseUnknown();
            return text;
        }));
    }
}
