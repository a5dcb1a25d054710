using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>Anthropic's <c>POST /v1/messages</c> and <c>/v1/messages/count_tokens</c>.</summary>
internal static class Messages
{
    public static async Task HandleAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        ServedModel model = lease.Model;
        MessagesRequest read = MessagesRequest.Read(body, request.Server.Options, isCount: false);
        read.Call.WithPrefixKey(request.PrefixKey(body));
        var head = new MessageView($"msg_{Guid.NewGuid():N}", "message", "assistant", model.Names[0], [], null, null, new MessageUsage(null, 0, null, null));
        if (read.Stream)
        {
            await StreamAsync(request, read, model, head).ConfigureAwait(false);
            return;
        }

        var answer = new ChatAnswer();
        await foreach ((_, ChatResponseUpdate update) in read.Call.RunAsync(model.Chat, request.Cancellation).ConfigureAwait(false))
        {
            answer.Add(update);
        }

        var blocks = new List<ContentBlock>();
        if (answer.Thoughts.Length > 0)
        {
            blocks.Add(new ContentBlock("thinking") { Thinking = answer.Thoughts, Signature = "" });
        }

        if (answer.Text.Length > 0)
        {
            blocks.Add(new ContentBlock("text") { Text = answer.Text });
        }

        blocks.AddRange(answer.Calls.Select(call => new ContentBlock("tool_use") { Id = call.CallId, Name = call.Name, Input = ChatAnswer.ArgumentsObject(call) }));
        await JsonResult.WriteAsync(
            request.Http.Response, head with { Content = [.. blocks], StopReason = Reason(answer.Finish, answer.StopSequence), StopSequence = answer.StopSequence, Usage = Usage(answer.Usage) }, ServerJson.Text.MessageView).ConfigureAwait(false);
    }

    public static async Task CountAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        MessagesRequest read = MessagesRequest.Read(body, request.Server.Options, isCount: true);
        await JsonResult.WriteAsync(request.Http.Response, new TokenCount(Count(read, lease.Model, request.Cancellation)), ServerJson.Text.TokenCount).ConfigureAwait(false);
    }

    private static int Count(MessagesRequest read, ServedModel model, CancellationToken cancellation)
    {
        Tokenizer tokenizer = model.Weights.Tokenizer;
        return tokenizer.Encode(read.Call.Prompt(model, cancellation).Text, tokenizer.AddBos).Length;
    }

    private static async Task StreamAsync(ApiRequest request, MessagesRequest read, ServedModel model, MessageView head)
    {
        int index = -1;
        string? open = null;  // type of the block under way
        EventStream? stream = null;
        UsageDetails usage = new();
        ChatFinishReason finish = ChatFinishReason.Stop;
        string? stop = null;
        await foreach ((_, ChatResponseUpdate update) in read.Call.RunAsync(model.Chat, request.Cancellation).ConfigureAwait(false))
        {
            await StartAsync().ConfigureAwait(false);
            if (update.RawRepresentation is CallDelta part)
            {
                if (part.IsFirst)
                {
                    await CallAsync(part.CallId, part.Name).ConfigureAwait(false);
                }

                await ArgumentsAsync(part.Arguments).ConfigureAwait(false);
            }

            foreach (AIContent content in update.Contents)
            {
                switch (content)
                {
                    case TextContent { Text.Length: > 0 } text:
                        await OpenAsync("text", new ContentBlock("text") { Text = "" }).ConfigureAwait(false);
                        await SendAsync(new MessageEvent("content_block_delta") { Index = index, Delta = new MessageDelta { Type = "text_delta", Text = text.Text } }).ConfigureAwait(false);
                        break;
                    case TextReasoningContent { Text.Length: > 0 } thought:
                        await OpenAsync("thinking", new ContentBlock("thinking") { Thinking = "", Signature = "" }).ConfigureAwait(false);
                        await SendAsync(new MessageEvent("content_block_delta") { Index = index, Delta = new MessageDelta { Type = "thinking_delta", Thinking = thought.Text } }).ConfigureAwait(false);
                        break;
                    case FunctionCallContent { RawRepresentation: CallDelta }:
                        break;  // given in parts
                    case FunctionCallContent call:
                        await CallAsync(call.CallId, call.Name).ConfigureAwait(false);
                        await ArgumentsAsync(ChatAnswer.ArgumentsText(call)).ConfigureAwait(false);
                        break;
                    case UsageContent given:
                        usage = given.Details;
                        break;
                }
            }

            finish = update.FinishReason ?? finish;
            stop = ChatAnswer.StopSequenceOf(update) ?? stop;
        }

        await StartAsync().ConfigureAwait(false);
        await CloseAsync().ConfigureAwait(false);
        await SendAsync(new MessageEvent("message_delta") { Delta = new MessageDelta { StopReason = Reason(finish, stop), StopSequence = stop }, Usage = Usage(usage) }).ConfigureAwait(false);
        var last = new MessageEvent("message_stop");
        stream!.WriteLast(last, ServerJson.Text.MessageEvent, last.Type);

        async Task StartAsync()
        {
            if (stream is null)
            {
                int prompt = Count(read, model, request.Cancellation);
                stream = EventStream.Start(request.Http.Response);
                await SendAsync(new MessageEvent("message_start") { Message = head with { Usage = new MessageUsage(prompt, 0, null, null) } }).ConfigureAwait(false);
            }
        }

        async Task CallAsync(string id, string name)
        {
            await CloseAsync().ConfigureAwait(false);
            using JsonDocument none = JsonDocument.Parse("{}");
            await OpenAsync("tool_use", new ContentBlock("tool_use") { Id = id, Name = name, Input = none.RootElement.Clone() }).ConfigureAwait(false);
        }

        Task ArgumentsAsync(string json) =>
            SendAsync(new MessageEvent("content_block_delta") { Index = index, Delta = new MessageDelta { Type = "input_json_delta", PartialJson = json } });

        async Task OpenAsync(string type, ContentBlock block)
        {
            if (open == type)
            {
                return;
            }

            await CloseAsync().ConfigureAwait(false);
            open = type;
            index++;
            await SendAsync(new MessageEvent("content_block_start") { Index = index, ContentBlock = block }).ConfigureAwait(false);
        }

        async Task CloseAsync()
        {
            if (open is not null)
            {
                open = null;
                await SendAsync(new MessageEvent("content_block_stop") { Index = index }).ConfigureAwait(false);
            }
        }

        Task SendAsync(MessageEvent item) => stream!.SendAsync(item, ServerJson.Text.MessageEvent, item.Type, request.Cancellation);
    }

    private static string Reason(ChatFinishReason finish, string? stop) =>
        finish == ChatFinishReason.ToolCalls ? "tool_use" : finish == ChatFinishReason.Length ? "max_tokens" : stop is not null ? "stop_sequence" : "end_turn";

    // Anthropic counts cached tokens apart.
    private static MessageUsage Usage(UsageDetails usage)
    {
        long cached = usage.CachedInputTokenCount ?? 0;
        return new MessageUsage((usage.InputTokenCount ?? 0) - cached, usage.OutputTokenCount ?? 0, cached, 0);
    }
}

internal sealed record MessageView(
    string Id, string Type, string Role, string Model, ContentBlock[] Content,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? StopReason,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? StopSequence, MessageUsage Usage);

internal sealed record MessageUsage(long? InputTokens, long OutputTokens, long? CacheReadInputTokens, long? CacheCreationInputTokens);

internal sealed record ContentBlock(string Type)
{
    public string? Text { get; init; }

    public string? Thinking { get; init; }

    public string? Signature { get; init; }

    public string? Id { get; init; }

    public string? Name { get; init; }

    public JsonElement? Input { get; init; }
}

internal sealed record MessageEvent(string Type)
{
    public MessageView? Message { get; init; }

    public int? Index { get; init; }

    public ContentBlock? ContentBlock { get; init; }

    public MessageDelta? Delta { get; init; }

    public MessageUsage? Usage { get; init; }
}

internal sealed record MessageDelta
{
    public string? Type { get; init; }

    public string? Text { get; init; }

    public string? Thinking { get; init; }

    public string? PartialJson { get; init; }

    public string? StopReason { get; init; }

    public string? StopSequence { get; init; }
}

internal sealed record TokenCount(long InputTokens);
