using LlamaKivi.Tokenization;
using Microsoft.AspNetCore.Http;
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
        ResponsesRequest read = ResponsesRequest.Read(body, request.Server.Options);
        var writer = new Writer(request, read.Head with { Model = model.Names[0] }, model.Weights.Tokenizer, read.Stream);
        ChatCall call = read.Call.WithPrefixKey(request.PrefixKey(body));
        await foreach ((_, ChatResponseUpdate update) in call.RunAsync(model.Chat, request.Cancellation).ConfigureAwait(false))
        {
            await writer.AddAsync(update).ConfigureAwait(false);
        }

        await writer.FinishAsync().ConfigureAwait(false);
    }

    /// <summary>Collects the output items. Sends their events if the response is streamed.</summary>
    private sealed class Writer(ApiRequest request, ResponseView head, Tokenizer tokenizer, bool isStream)
    {
        private readonly List<OutputItem> _items = [];
        private readonly System.Text.StringBuilder _text = new();
        private readonly List<LogprobView> _logprobs = [];  // of the text
        private UsageDetails _usage = new();
        private ChatFinishReason _finish = ChatFinishReason.Stop;
        private OutputItem? _open;  // item under way
        private EventStream? _stream;
        private int _sequence;
        private CancellationToken _cancellation = request.Cancellation;

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

            LogprobView[] logprobs = LogprobsView.Of(update, tokenizer)?.Content ?? [];
            foreach (AIContent content in update.Contents)
            {
                switch (content)
                {
                    case TextContent { Text.Length: > 0 } text:
                        await OpenAsync("message").ConfigureAwait(false);
                        await WriteAsync(text.Text, logprobs).ConfigureAwait(false);
                        logprobs = [];
                        break;
                    case TextReasoningContent { Text.Length: > 0 } thought:
                        await OpenAsync("reasoning").ConfigureAwait(false);
                        _text.Append(thought.Text);
                        await SendAsync(PartEvent("response.reasoning_text.delta") with { Delta = thought.Text }).ConfigureAwait(false);
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

            if (update.FinishReason is { } reason)
            {
                _finish = reason;
                if (logprobs.Length > 0 && _open?.Type == "message")
                {
                    await WriteAsync("", logprobs).ConfigureAwait(false);  // the last tokens completed no text
                }
            }
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
                Usage = new ResponseUsage(
                    input, new PromptTokensDetails(_usage.CachedInputTokenCount ?? 0), output, new CompletionTokensDetails(_usage.ReasoningTokenCount ?? 0), input + output),
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

        // Ends a stream: the error, then the response with the output so far.
        private async Task FailAsync(ApiException error)
        {
            _cancellation = request.Http.RequestAborted;  // the request's own may be why it failed
            await CloseAsync(isWhole: false).ConfigureAwait(false);
            var detail = new ErrorDetail(error.Message, error.Type, error.Param, error.Code);
            var item = new ResponseErrorEvent("error", _sequence++, error.Code, error.Message, error.Param, detail);
            await _stream!.SendAsync(item, ServerJson.Text.ResponseErrorEvent, item.Type, _cancellation).ConfigureAwait(false);
            string code = error.Status >= StatusCodes.Status500InternalServerError ? "server_error" : "invalid_prompt";
            ResponseView failed = head with { Status = "failed", Error = new ResponseError(code, error.Message), Output = [.. _items] };
            await SendAsync(new ResponseEvent("response.failed") { Response = failed }).ConfigureAwait(false);
        }

        private async Task StartAsync()
        {
            if (isStream && _stream is null)
            {
                _stream = EventStream.Start(request.Http.Response);
                request.FailStream = FailAsync;
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
            _open = new OutputItem(type, $"{(isMessage ? "msg" : "rs")}_{Guid.NewGuid():N}")
            {
                Status = "in_progress",
                Role = isMessage ? "assistant" : null,
                Content = [],
                Summary = isMessage ? null : [],
            };
            await SendAsync(new ResponseEvent("response.output_item.added") { OutputIndex = _items.Count, Item = _open }).ConfigureAwait(false);
            await SendAsync(PartEvent("response.content_part.added") with { Part = Part("") }).ConfigureAwait(false);
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
            bool isMessage = _open.Type == "message";
            ResponseEvent done = PartEvent(isMessage ? "response.output_text.done" : "response.reasoning_text.done");
            await SendAsync(done with { Text = text, Logprobs = isMessage ? [.. _logprobs] : null }).ConfigureAwait(false);
            await SendAsync(PartEvent("response.content_part.done") with { Part = Part(text) }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.output_item.done") { OutputIndex = _items.Count, Item = item }).ConfigureAwait(false);
            _items.Add(item);
            _open = null;
            _text.Clear();
            _logprobs.Clear();
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
            await SendAsync(ItemEvent("response.function_call_arguments.delta") with { Delta = arguments }).ConfigureAwait(false);
        }

        private async Task EndCallAsync(bool isWhole)
        {
            OutputItem item = _open! with { Status = isWhole ? "completed" : "incomplete", Arguments = _text.ToString() };
            await SendAsync(ItemEvent("response.function_call_arguments.done") with { Name = item.Name, Arguments = item.Arguments }).ConfigureAwait(false);
            await SendAsync(new ResponseEvent("response.output_item.done") { OutputIndex = _items.Count, Item = item }).ConfigureAwait(false);
            _items.Add(item);
            _open = null;
            _text.Clear();
        }

        private async Task WriteAsync(string text, LogprobView[] logprobs)
        {
            _text.Append(text);
            _logprobs.AddRange(logprobs);
            await SendAsync(PartEvent("response.output_text.delta") with { Delta = text, Logprobs = logprobs }).ConfigureAwait(false);
        }

        private OutputPart Part(string text) => _open!.Type == "message"
            ? new OutputPart("output_text", text, [], [.. _logprobs])
            : new OutputPart("reasoning_text", text, null, null);

        // An event of the open item.
        private ResponseEvent ItemEvent(string type) => new(type) { ItemId = _open!.Id, OutputIndex = _items.Count };

        // An event of the open item's only part.
        private ResponseEvent PartEvent(string type) => ItemEvent(type) with { ContentIndex = 0 };

        private Task SendAsync(ResponseEvent item) => _stream is null
            ? Task.CompletedTask
            : _stream.SendAsync(item with { SequenceNumber = _sequence++ }, ServerJson.Text.ResponseEvent, item.Type, _cancellation);
    }
}
