using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>Reads requests of <c>/v1/responses</c>.</summary>
internal static class ResponsesRequest
{
    private static readonly string[] Included =
    [
        "reasoning.encrypted_content", "file_search_call.results", "web_search_call.results", "web_search_call.action.sources", "code_interpreter_call.outputs",
        "computer_call_output.output.image_url", "message.input_image.image_url",
    ];

    public static (ChatCall Call, bool Stream) Read(JsonFields body, LlamaKiviServerOptions server)
    {
        body.Accept("model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "stream_options");
        CheckInclude(body);
        body.AcceptOnly("truncation", value => value.ValueEquals("disabled"), "use \"disabled\"");
        body.AcceptOnly("background", value => value.ValueKind == JsonValueKind.False, "leave it out");
        if (body.TryGet("previous_response_id", out _) || body.TryGet("conversation", out _))
        {
            throw ApiException.Bad("previous_response_id", "This server stores no responses; send the whole conversation in input.", "unsupported_value");
        }

        var options = new SamplingChatOptions
        {
            Instructions = body.Text("instructions"),
            Temperature = body.Number("temperature", 0, 100),
            TopP = body.Number("top_p", 0, 1),
            MaxOutputTokens = SamplingFields.MaxTokens(body.Whole("max_output_tokens", 1, int.MaxValue), server),
            AllowMultipleToolCalls = body.Flag("parallel_tool_calls"),
        };
        ReadTools(body, options);
        ReadFormat(body, options);
        if (body.Object("reasoning") is { } reasoning)
        {
            reasoning.Accept("summary", "generate_summary");
            options.Reasoning = ChatCompletionRequest.Reasoning(reasoning.OneOf("effort", "none", "minimal", "low", "medium", "high", "xhigh"));
            reasoning.RefuseUnknown();
        }

        bool stream = body.Flag("stream") ?? false;
        List<ChatMessage> messages = ReadInput(body);
        body.RefuseUnknown();
        options.StreamsCalls = stream;
        return (new ChatCall(messages, options), stream);
    }

    // Parts of tools that this server does not have, and of thoughts, which are always included.
    private static void CheckInclude(JsonFields body)
    {
        foreach ((JsonElement value, string path) in body.Items("include") ?? [])
        {
            string part = JsonFields.Text(value, path);
            if (!Array.Exists(Included, known => known == part))
            {
                throw ApiException.Bad(path, $"{path} names a part that this server does not give; leave it out.", "unsupported_value");
            }
        }
    }

    private static void ReadFormat(JsonFields body, ChatOptions options)
    {
        if (body.Object("text") is not { } text)
        {
            return;
        }

        text.AcceptOnly("verbosity", value => value.ValueEquals("medium"), "leave it out");
        if (text.Object("format") is { } format)
        {
            string type = format.OneOf("type", "text", "json_object", "json_schema") ?? throw format.Missing("type");
            options.ResponseFormat = type == "json_schema" ? ChatCompletionRequest.ReadSchema(format) : type == "json_object" ? ChatResponseFormat.Json : null;
            format.RefuseUnknown();
        }

        text.RefuseUnknown();
    }

    private static void ReadTools(JsonFields body, ChatOptions options)
    {
        options.Tools = ChatCompletionRequest.ReadFunctions(body, ChatCompletionRequest.ReadTool);
        if (body.TryGet("tool_choice", out JsonElement choice))
        {
            if (choice.ValueKind == JsonValueKind.Object)
            {
                var named = new JsonFields(choice, "tool_choice");
                named.OneOf("type", "function");
                options.ToolMode = ChatToolMode.RequireSpecific(named.RequiredText("name"));
                named.RefuseUnknown();
            }
            else
            {
                options.ToolMode = body.OneOf("tool_choice", "none", "auto", "required") switch
                {
                    "none" => ChatToolMode.None,
                    "required" => ChatToolMode.RequireAny,
                    _ => ChatToolMode.Auto,
                };
            }
        }

        ChatCompletionRequest.CheckChoice(options);
    }

    private static List<ChatMessage> ReadInput(JsonFields body)
    {
        JsonElement input = body.Required("input");
        if (input.ValueKind == JsonValueKind.String)
        {
            return [new ChatMessage(ChatRole.User, body.Text("input"))];
        }

        var messages = new List<ChatMessage>();
        foreach ((JsonElement value, string path) in JsonFields.Items(input, "input"))
        {
            var item = new JsonFields(value, path);
            item.Accept("id", "status", "encrypted_content", "summary");
            string type = item.Text("type") ?? "message";
            ChatMessage message = type switch
            {
                "message" => Message(item),
                "function_call" => new ChatMessage(ChatRole.Assistant, [new FunctionCallContent(item.RequiredText("call_id"), item.RequiredText("name"), ChatMessageReader.Arguments(item))]),
                "function_call_output" => new ChatMessage(
                    ChatRole.Tool, [new FunctionResultContent(item.RequiredText("call_id"), ChatMessageReader.Text(item, "output", "input_text") ?? throw item.Missing("output"))]),
                "reasoning" => new ChatMessage(ChatRole.Assistant, [new TextReasoningContent(ChatMessageReader.Text(item, "content", "reasoning_text") ?? "")]),
                _ => throw ApiException.Bad(item.Path("type"), $"{item.Path("type")} is '{type}', which this server does not support.", "unsupported_value"),
            };
            item.RefuseUnknown();

            // Thoughts, text and calls of one turn are one message for templates.
            if (message.Role == ChatRole.Assistant && messages.Count > 0 && messages[^1].Role == ChatRole.Assistant)
            {
                messages[^1].Contents = [.. messages[^1].Contents, .. message.Contents];
            }
            else
            {
                messages.Add(message);
            }
        }

        return messages.Count > 0 ? messages : throw ApiException.Bad("input", "input is empty; give at least one item.", "empty_array");
    }

    private static ChatMessage Message(JsonFields item)
    {
        string role = item.OneOf("role", "system", "developer", "user", "assistant") ?? throw item.Missing("role");
        item.Accept("phase");
        string text = ChatMessageReader.Text(item, "content", "input_text", "output_text", "refusal") ?? throw item.Missing("content");
        return new ChatMessage(role switch { "user" => ChatRole.User, "assistant" => ChatRole.Assistant, _ => ChatRole.System }, text);
    }
}
