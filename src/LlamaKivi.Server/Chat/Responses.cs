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
        await foreach ((_, ChatResponseUpdate update) in call.WithPrefixKey(request.PrefixKey(body)).RunAsync(model.Chat, request.Cancellation).ConfigureAwait(false))
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
        private OutputItem? _open;  // item under way
        private EventStream? _stream;
        private int _sequence;

        public async Task AddAsync(ChatResponseUpdate update)
        {
            await StartAsync().ConfigureAwait(false);
            if (update.RawRepresentation is CallDelta part)
            {
                if (part.IsFirst)
                {
                    await BeginCallAsync(part.CallId, part.Name).ConfigureAwait(false);
                }

                await ContinueCallAsync(part.Arguments).ConfigureAwait(false);
            }

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
                    case FunctionCallContent { RawRepresentation: CallDelta }:
                        await EndCallAsync(isWhole: true).ConfigureAwait(false);
                        break;
                    case FunctionCallContent call:
                        await BeginCallAsync(call.CallId, call.Name).ConfigureAwait(false);
                        await ContinueCallAsync(ChatAnswer.ArgumentsText(call)).ConfigureAwait(false);
                        await EndCallAsync(isWhole: true).ConfigureAwait(false);
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
            bool isCut = _finish == ChatFinishReason.Length;
            await CloseAsync(isWhole: !isCut).ConfigureAwait(false);
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
                var last = new ResponseEvent(isCut ? "response.incomplete" : "response.completed") { Response = response, SequenceNumber = _sequence++ };
                _stream!.WriteLast(last, ServerJson.Text.ResponseEvent, last.Type);
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

        private async Task CloseAsync(bool isWhole = true)
        {
            if (_open is null)
            {
                return;
            }

            if (_open.Type == "function_call")
            {
                await EndCallAsync(isWhole: false).ConfigureAwait(false);  // the answer was cut off
                return;
            }

            string text = _text.ToString();
            OutputItem item = _open with { Status = isWhole ? "completed" : "incomplete", Content = [Part(text)] };
            string done = _open.Type == "message" ? "response.output_text.done" : "response.reasoning_text.done";
            await SendAsync(new ResponseEvent(done) { ItemId = item.Id, OutputIndex = _items.Count, ContentIndex = 0, Text = text }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.content_part.done") { ItemId = item.Id, OutputIndex = _items.Count, ContentIndex = 0, Part = Part(text) }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.output_item.done") { OutputIndex = _items.Count, Item = item }).ConfigureAwait(false);
            _items.Add(item);
            _open = null;
            _text.Clear();
        }

        private async Task BeginCallAsync(string id, string name)
        {
            await CloseAsync().ConfigureAwait(false);
            _open = new OutputItem("function_call", $"fc_{Guid.NewGuid():N}") { Status = "in_progress", CallId = id, Name = name, Arguments = "" };
            await SendAsync(new ResponseEvent("response.output_item.added") { OutputIndex = _items.Count, Item = _open }).ConfigureAwait(false);
        }

        private async Task ContinueCallAsync(string arguments)
        {
            _text.Append(arguments);
            await SendAsync(new ResponseEvent("response.function_call_arguments.delta") { ItemId = _open!.Id, OutputIndex = _items.Count, Delta = arguments }).ConfigureAwait(false);
        }

        private async Task EndCallAsync(bool isWhole)
        {
            OutputItem item = _open! with { Status = isWhole ? "completed" : "incomplete", Arguments = _text.ToString() };
            await SendAsync(new ResponseEvent("response.function_call_arguments.done") { ItemId = item.Id, OutputIndex = _items.Count, Name = item.Name, Arguments = item.Arguments }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.output_item.done") { OutputIndex = _items.Count, Item = item }).ConfigureAwait(false);
            _items.Add(item);
            _open = null;
            _text.Clear();
        }

        private OutputPart Part(string text) => _open!.Type == "message" ? new OutputPart("output_text", text, []) : new OutputPart("reasoning_text", text, null);

        private Task SendAsync(ResponseEvent item) =>
            _stream is null ? Task.CompletedTask : _stream.SendAsync(item with { SequenceNumber = _sequence++ }, ServerJson.Text.ResponseEvent, item.Type, request.Cancellation);
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
