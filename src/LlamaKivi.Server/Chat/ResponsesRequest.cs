using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>A request of <c>/v1/responses</c>.</summary>
/// <param name="Call">The chat call.</param>
/// <param name="Stream">Whether the response is streamed.</param>
/// <param name="Head">The response before any output; it repeats the settings of the request.</param>
internal sealed record ResponsesRequest(ChatCall Call, bool Stream, ResponseView Head)
{
    private const string Logprobs = "message.output_text.logprobs";

    // Parts of tools that this server does not have, and of thoughts, which are always included.
    private static readonly string[] Included =
    [
        "reasoning.encrypted_content", "file_search_call.results", "web_search_call.results", "web_search_call.action.sources", "code_interpreter_call.outputs",
        "computer_call_output.output.image_url", "message.input_image.image_url",
    ];

    /// <summary>Reads a request.</summary>
    /// <exception cref="ApiException">A field is wrong; the error names it.</exception>
    public static ResponsesRequest Read(JsonFields body, LlamaKiviServerOptions server)
    {
        body.Accept("model", "store", "service_tier", "prompt_cache_retention", "stream_options");
        body.AcceptOnly("truncation", "disabled", "use \"disabled\"");
        body.AcceptOnly("background", value => value.ValueKind == JsonValueKind.False, "leave it out");
        foreach (string name in (string[])["previous_response_id", "conversation"])
        {
            if (body.TryGet(name, out _))
            {
                throw ApiException.Bad(
                    name, $"{name} is set, but this server stores no responses. Send the whole conversation in input; some clients do so if store is false.", "unsupported_value");
            }
        }

        long? limit = body.Whole("max_output_tokens", 1, int.MaxValue);
        var options = new SamplingChatOptions
        {
            Instructions = body.Text("instructions"),
            Temperature = body.Number("temperature", 0, 100),
            TopP = body.Number("top_p", 0, 1),
            MaxOutputTokens = SamplingFields.MaxTokens(limit, server),
        };
        ReadTools(body, options);
        (JsonElement? format, JsonElement? verbosity) = ReadText(body, options);
        ReasoningView reasoning = ReadReasoning(body, options);
        int topLogprobs = ReadLogprobs(body, options);
        bool stream = body.Flag("stream") ?? false;
        List<ChatMessage> messages = ReadInput(body);
        var head = new ResponseView
        {
            Instructions = options.Instructions,
            MaxOutputTokens = limit,
            MaxToolCalls = body.Whole("max_tool_calls", 1, int.MaxValue),  // of tools that run in the server: it has none
            Metadata = RequestMetadata.Read(body) ?? JsonElement.Parse("{}"),
            ParallelToolCalls = options.AllowMultipleToolCalls ?? true,
            PromptCacheKey = body.Text("prompt_cache_key"),
            Reasoning = reasoning,
            SafetyIdentifier = body.Text("safety_identifier"),
            Temperature = options.Temperature,
            Text = new TextView(format ?? JsonElement.Parse("""{"type":"text"}"""), verbosity),
            ToolChoice = body.TryGet("tool_choice", out JsonElement choice) ? choice : JsonElement.Parse("\"auto\""),
            Tools = [.. (body.Items("tools") ?? []).Select(tool => tool.Value)],
            TopLogprobs = topLogprobs,
            TopP = options.TopP,
            User = body.Text("user"),
        };
        body.RefuseUnknown();
        options.StreamsCalls = stream;
        return new ResponsesRequest(new ChatCall(messages, options), stream, head);
    }

    private static int ReadLogprobs(JsonFields body, ChatOptions options)
    {
        bool asked = false;
        foreach ((JsonElement value, string path) in body.Items("include") ?? [])
        {
            string part = JsonFields.Text(value, path);
            asked |= part == Logprobs;
            if (part != Logprobs && !Array.Exists(Included, known => known == part))
            {
                throw ApiException.Bad(path, $"{path} names a part that this server does not give; leave it out.", "unsupported_value");
            }
        }

        int top = (int)(body.Whole("top_logprobs", 0, 20) ?? 0);
        if (top > 0 && !asked)
        {
            throw ApiException.Bad("top_logprobs", $"top_logprobs is set, but include does not have \"{Logprobs}\"; remove it, or add that.", "invalid_value");
        }

        if (asked)
        {
            (options.AdditionalProperties ??= [])[ChatRequest.TopLogprobsName] = top;
        }

        return top;
    }

    private static ReasoningView ReadReasoning(JsonFields body, ChatOptions options)
    {
        if (body.Object("reasoning") is not { } reasoning)
        {
            return new ReasoningView(null, null);
        }

        reasoning.Accept("generate_summary");
        string? effort = reasoning.OneOf("effort", "none", "minimal", "low", "medium", "high", "xhigh");
        options.Reasoning = ChatCompletionRequest.Reasoning(effort);
        var view = new ReasoningView(effort, reasoning.Text("summary"));
        reasoning.RefuseUnknown();
        return view;
    }

    private static (JsonElement? Format, JsonElement? Verbosity) ReadText(JsonFields body, ChatOptions options)
    {
        if (body.Object("text") is not { } text)
        {
            return (null, null);
        }

        text.AcceptOnly("verbosity", "medium", "leave it out");
        JsonFields? format = text.Object("format");
        if (format is not null)
        {
            options.ResponseFormat = ChatCompletionRequest.ReadFormat(format, () => format);
        }

        text.RefuseUnknown();
        return (format?.Element, text.TryGet("verbosity", out JsonElement verbosity) ? verbosity : null);
    }

    private static void ReadTools(JsonFields body, ChatOptions options)
    {
        options.Tools = ChatCompletionRequest.ReadFunctions(body, ChatCompletionRequest.ReadTool);
        ChatCompletionRequest.ReadChoice(body, options, choice => choice.RequiredName("name"));
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
            item.Accept("id", "status");
            string type = item.Text("type") ?? "message";
            ChatMessage message = type switch
            {
                "message" => Message(item),
                "function_call" => new ChatMessage(
                    ChatRole.Assistant, [new FunctionCallContent(item.RequiredText("call_id"), item.RequiredText("name"), ChatMessageReader.Arguments(item))]),
                "function_call_output" => new ChatMessage(
                    ChatRole.Tool, [new FunctionResultContent(item.RequiredText("call_id"), ChatMessageReader.Text(item, "output", "input_text") ?? throw item.Missing("output"))]),
                "reasoning" => Thoughts(item),
                _ => throw ApiException.Bad(item.Path("type"), $"{item.Path("type")} is '{type}', which this server does not support.", "unsupported_value"),
            };
            item.RefuseUnknown();

            // Thoughts, text and calls of one turn are one message for templates.
            if (message.Role == ChatRole.Assistant && messages.Count > 0 && messages[^1].Role == ChatRole.Assistant)
            {
                messages[^1].Contents = [.. messages[^1].Contents, .. message.Contents];
            }
            else if (message.Contents.Count > 0)
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

    // Clients that show summaries alone send them back without the thoughts. Thoughts that are encrypted are another server's.
    private static ChatMessage Thoughts(JsonFields item)
    {
        item.Accept("encrypted_content");
        string? summary = ChatMessageReader.Text(item, "summary", "summary_text");
        string? thoughts = ChatMessageReader.Text(item, "content", "reasoning_text");
        string? text = string.IsNullOrEmpty(thoughts) ? summary : thoughts;
        return new ChatMessage(ChatRole.Assistant, string.IsNullOrEmpty(text) ? [] : [new TextReasoningContent(text)]);
    }
}
