using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>OpenAI's <c>POST /v1/responses</c>, without stored conversations.</summary>
internal static class Responses
{
    public static async Task HandleAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        ServedModel model = lease.Model;
        (ChatCall call, bool stream) = ResponsesRequest.Read(body, request.Server.Options);
        var writer = new Writer(request, new ResponseView($"resp_{Guid.NewGuid():N}", "response", DateTimeOffset.UtcNow.ToUnixTimeSeconds(), "in_progress", model.Names[0], [], null, null, call.Options.AllowMultipleToolCalls ?? true, "auto", []), stream);
        await foreach ((_, ChatResponseUpdate update) in call.RunAsync(model.Chat, request.Cancellation).ConfigureAwait(false))
        {
            await writer.AddAsync(update).ConfigureAwait(false);
        }

        await writer.FinishAsync().ConfigureAwait(false);
    }

    /// <summary>Collects the output items, and sends their events if the response is streamed.</summary>
    private sealed class Writer(ApiRequest request, ResponseView head, bool isStream)
    {
        private readonly List<OutputItem> _items = [];
        private readonly System.Text.StringBuilder _text = new();
        private UsageDetails _usage = new();
        private ChatFinishReason _finish = ChatFinishReason.Stop;
        private OutputItem? _open;  // message or reasoning under way
        private EventStream? _stream;
        private int _sequence;

        public async Task AddAsync(ChatResponseUpdate update)
        {
            await StartAsync().ConfigureAwait(false);
            foreach (AIContent content in update.Contents)
            {
                switch (content)
                {
                    case TextContent { Text.Length: > 0 } text:
                        await OpenAsync("message").ConfigureAwait(false);
                        _text.Append(text.Text);
                        await SendAsync(new ResponseEvent("response.output_text.delta") { ItemId = _open!.Id, OutputIndex = _items.Count, ContentIndex = 0, Delta = text.Text }).ConfigureAwait(false);
                        break;
                    case TextReasoningContent { Text.Length: > 0 } thought:
                        await OpenAsync("reasoning").ConfigureAwait(false);
                        _text.Append(thought.Text);
                        await SendAsync(new ResponseEvent("response.reasoning_text.delta") { ItemId = _open!.Id, OutputIndex = _items.Count, ContentIndex = 0, Delta = thought.Text }).ConfigureAwait(false);
                        break;
                    case FunctionCallContent call:
                        await CloseAsync().ConfigureAwait(false);
                        await CallAsync(call).ConfigureAwait(false);
                        break;
                    case UsageContent usage:
                        _usage = usage.Details;
                        break;
                }
            }

            _finish = update.FinishReason ?? _finish;
        }

        public async Task FinishAsync()
        {
            await StartAsync().ConfigureAwait(false);
            await CloseAsync().ConfigureAwait(false);
            bool isCut = _finish == ChatFinishReason.Length;
            long input = _usage.InputTokenCount ?? 0;
            long output = _usage.OutputTokenCount ?? 0;
            ResponseView response = head with
            {
                Status = isCut ? "incomplete" : "completed",
                IncompleteDetails = isCut ? new IncompleteDetails("max_output_tokens") : null,
                Output = [.. _items],
                Usage = new ResponseUsage(input, new PromptTokensDetails(_usage.CachedInputTokenCount ?? 0), output, new CompletionTokensDetails(_usage.ReasoningTokenCount ?? 0), input + output),
            };
            if (isStream)
            {
                await SendAsync(new ResponseEvent(isCut ? "response.incomplete" : "response.completed") { Response = response }).ConfigureAwait(false);
            }
            else
            {
                await JsonResult.WriteAsync(request.Http.Response, response, ServerJson.Text.ResponseView).ConfigureAwait(false);
            }
        }

        private async Task StartAsync()
        {
            if (isStream && _stream is null)
            {
                _stream = EventStream.Start(request.Http.Response);
                await SendAsync(new ResponseEvent("response.created") { Response = head }).ConfigureAwait(false);
                await SendAsync(new ResponseEvent("response.in_progress") { Response = head }).ConfigureAwait(false);
            }
        }

        private async Task OpenAsync(string type)
        {
            if (_open?.Type == type)
            {
                return;
            }

            await CloseAsync().ConfigureAwait(false);
            bool isMessage = type == "message";
            _open = new OutputItem(type, $"{(isMessage ? "msg" : "rs")}_{Guid.NewGuid():N}") { Status = "in_progress", Role = isMessage ? "assistant" : null, Content = [], Summary = isMessage ? null : [] };
            await SendAsync(new ResponseEvent("response.output_item.added") { OutputIndex = _items.Count, Item = _open }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.content_part.added") { ItemId = _open.Id, OutputIndex = _items.Count, ContentIndex = 0, Part = Part("") }).ConfigureAwait(false);
        }

        private async Task CloseAsync()
        {
            if (_open is null)
            {
                return;
            }

            string text = _text.ToString();
            OutputItem item = _open with { Status = "completed", Content = [Part(text)] };
            string done = _open.Type == "message" ? "response.output_text.done" : "response.reasoning_text.done";
            await SendAsync(new ResponseEvent(done) { ItemId = item.Id, OutputIndex = _items.Count, ContentIndex = 0, Text = text }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.content_part.done") { ItemId = item.Id, OutputIndex = _items.Count, ContentIndex = 0, Part = Part(text) }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.output_item.done") { OutputIndex = _items.Count, Item = item }).ConfigureAwait(false);
            _items.Add(item);
            _open = null;
            _text.Clear();
        }

        private async Task CallAsync(FunctionCallContent call)
        {
            string arguments = ChatAnswer.ArgumentsText(call);
            var item = new OutputItem("function_call", $"fc_{Guid.NewGuid():N}") { Status = "completed", CallId = call.CallId, Name = call.Name, Arguments = arguments };
            await SendAsync(new ResponseEvent("response.output_item.added") { OutputIndex = _items.Count, Item = item with { Status = "in_progress", Arguments = "" } }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.function_call_arguments.delta") { ItemId = item.Id, OutputIndex = _items.Count, Delta = arguments }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.function_call_arguments.done") { ItemId = item.Id, OutputIndex = _items.Count, Name = call.Name, Arguments = arguments }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.output_item.done") { OutputIndex = _items.Count, Item = item }).ConfigureAwait(false);
            _items.Add(item);
        }

        private OutputPart Part(string text) => _open!.Type == "message" ? new OutputPart("output_text", text, []) : new OutputPart("reasoning_text", text, null);

        private Task SendAsync(ResponseEvent item) =>
            _stream is null ? Task.CompletedTask : _stream.SendAsync(item with { SequenceNumber = _sequence++ }, ServerJson.Text.ResponseEvent, item.Type, request.Cancellation);
    }
}

/// <summary>Reads requests of <c>/v1/responses</c>.</summary>
internal static class ResponsesRequest
{
    public static (ChatCall Call, bool Stream) Read(JsonFields body, LlamaKiviServerOptions server)
    {
        body.Accept("model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "include", "stream_options");
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
        return (new ChatCall(messages, options), stream);
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
        var tools = new List<AITool>();
        foreach ((JsonElement value, string path) in body.Items("tools") ?? [])
        {
            var tool = new JsonFields(value, path);
            if (tool.OneOf("type", "function") is null)
            {
                throw tool.Missing("type");
            }

            tools.Add(ChatCompletionRequest.ReadTool(tool));
        }

        options.Tools = tools.Count > 0 ? tools : null;
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

internal sealed record ResponseView(
    string Id, string Object, long CreatedAt, string Status, string Model, OutputItem[] Output, ResponseUsage? Usage, IncompleteDetails? IncompleteDetails,
    bool ParallelToolCalls, string ToolChoice, JsonElement[] Tools);

internal sealed record IncompleteDetails(string Reason);

internal sealed record ResponseUsage(long InputTokens, PromptTokensDetails InputTokensDetails, long OutputTokens, CompletionTokensDetails OutputTokensDetails, long TotalTokens);

internal sealed record OutputItem(string Type, string Id)
{
    public string? Status { get; init; }

    public string? Role { get; init; }

    public OutputPart[]? Content { get; init; }

    public OutputPart[]? Summary { get; init; }

    public string? CallId { get; init; }

    public string? Name { get; init; }

    public string? Arguments { get; init; }
}

internal sealed record OutputPart(string Type, string Text, string[]? Annotations);

internal sealed record ResponseEvent(string Type)
{
    public int SequenceNumber { get; init; }

    public ResponseView? Response { get; init; }

    public int? OutputIndex { get; init; }

    public int? ContentIndex { get; init; }

    public string? ItemId { get; init; }

    public OutputItem? Item { get; init; }

    public OutputPart? Part { get; init; }

    public string? Delta { get; init; }

    public string? Text { get; init; }

    public string? Name { get; init; }

    public string? Arguments { get; init; }
}
