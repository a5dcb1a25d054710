using System.Text.Json.Serialization;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary><c>POST /v1/chat/completions</c>.</summary>
internal static class ChatCompletions
{
    public static async Task HandleAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        ServedModel model = lease.Model;
        ChatCompletionRequest read = ChatCompletionRequest.Read(body, request.Server.Options, model);
        var identity = new Identity($"chatcmpl-{Guid.NewGuid():N}", DateTimeOffset.UtcNow.ToUnixTimeSeconds(), model.Names[0]);
        IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> updates = read.Call.WithPrefixKey(request.PrefixKey(body)).RunAsync(model.Chat, request.Cancellation);
        await (read.Stream ? StreamAsync(request, read, identity, model, updates) : AnswerAsync(request, read, identity, model, updates)).ConfigureAwait(false);
    }

    private static async Task AnswerAsync(ApiRequest request, ChatCompletionRequest read, Identity identity, ServedModel model, IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> updates)
    {
        ChatAnswer[] answers = [.. Enumerable.Range(0, read.Call.Choices).Select(_ => new ChatAnswer())];
        var logprobs = new List<LogprobView>[answers.Length];
        await foreach ((int choice, ChatResponseUpdate update) in updates.ConfigureAwait(false))
        {
            answers[choice].Add(update);
            if (LogprobsView.Of(update, model.Weights.Tokenizer) is { } tokens)
            {
                (logprobs[choice] ??= []).AddRange(tokens.Content);
            }
        }

        var choices = answers.Select((answer, i) => new ChatChoice(i, new ChatChoiceMessage(
            "assistant",
            answer.Text.Length > 0 || answer.Calls.Count == 0 ? answer.Text : null,
            answer.Thoughts.Length > 0 ? answer.Thoughts : null,
            answer.Calls.Count > 0 ? [.. answer.Calls.Select(call => new ToolCallView(null, call.CallId, "function", new ToolFunctionView(call.Name, ChatAnswer.ArgumentsText(call))))] : null),
            logprobs[i] is null ? null : new LogprobsView([.. logprobs[i]]),
            answer.Finish.Value));
        await JsonResult.WriteAsync(
            request.Http.Response,
            new ChatCompletion(identity.Id, "chat.completion", identity.Created, identity.Model, [.. choices], UsageView.Of(answers.Select(answer => answer.Usage))),
            ServerJson.Text.ChatCompletion).ConfigureAwait(false);
    }

    private static async Task StreamAsync(ApiRequest request, ChatCompletionRequest read, Identity identity, ServedModel model, IAsyncEnumerable<(int Choice, ChatResponseUpdate Update)> updates)
    {
        CancellationToken cancellation = request.Cancellation;
        EventStream? stream = null;
        var started = new bool[read.Call.Choices];
        var calls = new int[read.Call.Choices];
        var usages = new UsageDetails[read.Call.Choices];
        await foreach ((int choice, ChatResponseUpdate update) in updates.ConfigureAwait(false))
        {
            // The first update starts the response, so that earlier errors have their status.
            stream ??= EventStream.Start(request.Http.Response);
            if (!started[choice])
            {
                started[choice] = true;
                await SendAsync(choice, new ChatDelta("assistant", "", null, null), null).ConfigureAwait(false);
            }

            LogprobsView? logprobs = LogprobsView.Of(update, model.Weights.Tokenizer);
            if (update.RawRepresentation is CallDelta part)
            {
                ToolCallView call = part.IsFirst
                    ? new ToolCallView(calls[choice]++, part.CallId, "function", new ToolFunctionView(part.Name, part.Arguments))
                    : new ToolCallView(calls[choice] - 1, null, null, new ToolFunctionView(null, part.Arguments));
                await SendAsync(choice, new ChatDelta(null, null, null, [call]), null, logprobs).ConfigureAwait(false);
                logprobs = null;
            }

            foreach (AIContent content in update.Contents)
            {
                ChatDelta? delta = content switch
                {
                    TextContent { Text.Length: > 0 } text => new ChatDelta(null, text.Text, null, null),
                    TextReasoningContent { Text.Length: > 0 } thought => new ChatDelta(null, null, thought.Text, null),
                    FunctionCallContent { RawRepresentation: CallDelta } => null,  // given in parts
                    FunctionCallContent call => new ChatDelta(
                        null, null, null, [new ToolCallView(calls[choice]++, call.CallId, "function", new ToolFunctionView(call.Name, ChatAnswer.ArgumentsText(call)))]),
                    _ => null,
                };
                if (delta is not null)
                {
                    await SendAsync(choice, delta, null, logprobs).ConfigureAwait(false);
                    logprobs = null;
                }

                usages[choice] = content is UsageContent usage ? usage.Details : usages[choice];
            }

            if (update.FinishReason is { } reason)
            {
                await SendAsync(choice, new ChatDelta(null, null, null, null), reason.Value, logprobs).ConfigureAwait(false);
            }
        }

        stream ??= EventStream.Start(request.Http.Response);
        if (read.IncludeUsage)
        {
            await SendChunkAsync([], UsageView.Of(usages)).ConfigureAwait(false);
        }

        stream.WriteDone();

        Task SendAsync(int choice, ChatDelta delta, string? reason, LogprobsView? logprobs = null) => SendChunkAsync([new ChatChunkChoice(choice, delta, logprobs, reason)], null);

        Task SendChunkAsync(ChatChunkChoice[] choices, UsageView? usage) => stream!.SendAsync(
            new ChatCompletionChunk(identity.Id, "chat.completion.chunk", identity.Created, identity.Model, choices, usage), ServerJson.Text.ChatCompletionChunk, null, cancellation);
    }

    private sealed record Identity(string Id, long Created, string Model);
}

internal sealed record ChatCompletion(string Id, string Object, long Created, string Model, ChatChoice[] Choices, UsageView Usage);

internal sealed record ChatChoice(int Index, ChatChoiceMessage Message, LogprobsView? Logprobs, string FinishReason);

internal sealed record ChatChoiceMessage(
    string Role, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Content, string? ReasoningContent, ToolCallView[]? ToolCalls);

internal sealed record ToolCallView(int? Index, string? Id, string? Type, ToolFunctionView Function);

internal sealed record ToolFunctionView(string? Name, string Arguments);

internal sealed record ChatCompletionChunk(string Id, string Object, long Created, string Model, ChatChunkChoice[] Choices, UsageView? Usage);

internal sealed record ChatChunkChoice(int Index, ChatDelta Delta, LogprobsView? Logprobs, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? FinishReason);

internal sealed record ChatDelta(string? Role, string? Content, string? ReasoningContent, ToolCallView[]? ToolCalls);

internal sealed record UsageView(long PromptTokens, long CompletionTokens, long TotalTokens, PromptTokensDetails PromptTokensDetails, CompletionTokensDetails? CompletionTokensDetails)
{
    /// <summary>Adds the usages of a request's choices, which share the prompt.</summary>
    public static UsageView Of(IEnumerable<UsageDetails?> usages)
    {
        UsageDetails[] given = [.. usages.OfType<UsageDetails>()];
        long prompt = given.Length == 0 ? 0 : given.Max(usage => usage.InputTokenCount ?? 0);
        long output = given.Sum(usage => usage.OutputTokenCount ?? 0);
        long cached = given.Length == 0 ? 0 : given.Min(usage => usage.CachedInputTokenCount ?? 0);
        long thoughts = given.Sum(usage => usage.ReasoningTokenCount ?? 0);
        return new UsageView(prompt, output, prompt + output, new PromptTokensDetails(cached), new CompletionTokensDetails(thoughts));
    }
}

internal sealed record PromptTokensDetails(long CachedTokens);

internal sealed record CompletionTokensDetails(long ReasoningTokens);
