using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Templates;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>An executor as a chat client of Microsoft.Extensions.AI.</summary>
/// <remarks>
/// A response holds the context's turn. Clients whose executors share a context share that turn, first come, first served. A StatelessExecutor creates a context per call: its
/// clients are independent, and each gives one response at a time. Any other executor gives one response at a time to all of its clients.
/// </remarks>
internal sealed class ExecutorChatClient(ILLamaExecutor executor, IHistoryTransform? historyTransform, ITextStreamTransform? outputTransform) : IChatClient
{
    private const string ProviderName = "LlamaKivi";

    private static readonly ConditionalWeakTable<ILLamaExecutor, ContextGate> Turns = [];

    private readonly ContextGate _own = new(typeof(IChatClient).FullName!);
    private readonly ChatClientMetadata _metadata = new(ProviderName);
    private readonly CancellationTokenSource _disposal = new();  // never disposed of itself: a call that begins then still asks it

    public async Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default) =>
        await GetStreamingResponseAsync(messages, options, cancellationToken).ToChatResponseAsync(cancellationToken).ConfigureAwait(false);

    public IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        return new SingleReader<ChatResponseUpdate>(StreamAsync(messages, options, cancellationToken));
    }

    private async IAsyncEnumerable<ChatResponseUpdate> StreamAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _disposal.Token);
        await using IAsyncEnumerator<ChatResponseUpdate> updates = RespondAsync(messages, options, either.Token).GetAsyncEnumerator(CancellationToken.None);
        while (true)
        {
            try
            {
                if (!await updates.MoveNextAsync().ConfigureAwait(false))
                {
                    break;
                }
            }
            catch (OperationCanceledException e) when (cancellationToken.IsCancellationRequested)
            {
                throw new OperationCanceledException(e.Message, e, cancellationToken);
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException && _disposal.IsCancellationRequested)
            {
                throw new ObjectDisposedException(typeof(IChatClient).FullName);
            }

            yield return updates.Current;
        }
    }

    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(ChatClientMetadata) ? _metadata
            : serviceType.IsInstanceOfType(executor) ? executor
            : serviceType.IsInstanceOfType(this) ? this
            : null;
    }

    /// <summary>Cancels the client's responses; they and those that wait throw <see cref="ObjectDisposedException"/>. The executor is the caller's, and goes on.</summary>
    public void Dispose() => _disposal.Cancel();

    private async IAsyncEnumerable<ChatResponseUpdate> RespondAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using ContextTurn turn = await WaitTurnAsync(cancellationToken).ConfigureAwait(false);
        // Who waits does not wait for a reader that asks for no more. Weakly: the token lives longer than a response that nobody reads to its end.
        using CancellationTokenRegistration ending = cancellationToken.UnsafeRegister(
            static turn => (((WeakReference<ContextTurn>)turn!).TryGetTarget(out ContextTurn? target) ? target : null)?.Dispose(), new WeakReference<ContextTurn>(turn));
        bool hasTools = options?.Tools is { Count: > 0 } && options.ToolMode is not NoneChatToolMode;
        string prompt = Prompt([.. messages], hasTools ? options!.Tools! : [], cancellationToken);
        using var parameters = new Parameters(options, historyTransform);
        string id = Guid.NewGuid().ToString("N");
        string? model = options?.ModelId ?? _metadata.DefaultModelId;
        var whole = new StringBuilder();
        var results = new InferenceResults();
        IAsyncEnumerable<string> pieces = executor is StatefulExecutorBase stateful
            ? stateful.InferWholeAsync(turn, results, prompt, parameters.Inference, cancellationToken)
            : executor.InferAsync(prompt, parameters.Inference, cancellationToken);
        results = (pieces as InferenceStream)?.Results ?? results;  // the call's own; of the executor are those of whichever call was last
        IAsyncEnumerable<string> text = (outputTransform ?? new LLamaTransforms.EmptyTextOutputStreamTransform()).TransformAsync(pieces);
        await foreach (string piece in parameters.WithoutStops(text).WithCancellation(cancellationToken).ConfigureAwait(false))
        {
            whole.Append(piece);
            if (!hasTools)
            {
                yield return Update(new TextContent(piece));
            }
        }

        // Text that may be calls of tools is known to be some or not once it is whole.
        List<FunctionCallContent> calls = hasTools ? ToolCalls.Parse(whole.ToString()) : [];
        if (calls.Count > 0)
        {
            yield return Update([.. calls]);
        }
        else if (hasTools)
        {
            yield return Update(new TextContent(whole.ToString()));
        }

        InferenceTimings timings = results.Timings;
        ChatResponseUpdate last = Update(new UsageContent(new UsageDetails
        {
            InputTokenCount = timings.PromptTokens,
            OutputTokenCount = timings.GeneratedTokens,
            TotalTokenCount = timings.PromptTokens + timings.GeneratedTokens,
        }));
        last.FinishReason = calls.Count > 0 ? ChatFinishReason.ToolCalls : results.StopReason == StopReason.MaxTokens ? ChatFinishReason.Length : ChatFinishReason.Stop;
        yield return last;

        ChatResponseUpdate Update(params AIContent[] contents) => new(ChatRole.Assistant, contents)
        {
            ResponseId = id,
            MessageId = id,
            ModelId = model,
            CreatedAt = DateTimeOffset.UtcNow,
        };
    }

    private Task<ContextTurn> WaitTurnAsync(CancellationToken cancellationToken)
    {
        const string Operation = $"{nameof(IChatClient)}.{nameof(GetResponseAsync)}";
        return executor switch
        {
            StatefulExecutorBase => executor.Context.Handle.WaitTurnAsync(Operation, cancellationToken),
            StatelessExecutor => _own.WaitTurnAsync(Operation, cancellationToken),
            _ => Turns.GetValue(executor, static executor => new ContextGate(executor.GetType().FullName!)).WaitTurnAsync(Operation, cancellationToken),
        };
    }

    private string Prompt(ChatMessage[] messages, IList<AITool> tools, CancellationToken cancellationToken)
    {
        LLamaWeights weights = executor.Context.Weights;
        if (historyTransform is null && weights.NativeHandle.GetTemplate(strict: false) is not null)
        {
            return new LLamaTemplate(weights) { AddAssistant = true }.Render(
                tools.Count > 0 ? [KeyValuePair.Create("tools", (object?)ToolCalls.Describe(tools))] : null, [.. messages.SelectMany(Templated)], cancellationToken);
        }

        if (tools.Count > 0)
        {
            throw new MissingTemplateException("Tools are described to the model by its chat template, and this model's file has none, or another transform is set.");
        }

        var history = new ChatHistory([.. messages.Select(message => new ChatHistory.Message(Role(message.Role), message.Text))]);
        return historyTransform is null
            ? new LLamaTransforms.DefaultHistoryTransform().HistoryToText(history) + "Assistant:"
            : historyTransform.HistoryToText(history);
    }

    private static AuthorRole Role(ChatRole role) =>
        role == ChatRole.System ? AuthorRole.System : role == ChatRole.User ? AuthorRole.User : role == ChatRole.Assistant ? AuthorRole.Assistant : AuthorRole.Unknown;

    // A message as templates know it; the results of tools are messages of their own.
    private static IEnumerable<object?> Templated(ChatMessage message)
    {
        FunctionResultContent[] results = [.. message.Contents.OfType<FunctionResultContent>()];
        foreach (FunctionResultContent result in results)
        {
            yield return new Dictionary<string, object?>
            {
                ["role"] = "tool",
                ["tool_call_id"] = result.CallId,
                ["content"] = result.Result switch { null => "", string s => s, JsonElement { ValueKind: JsonValueKind.String } e => e.GetString(), JsonElement e => e.GetRawText(), var other => other.ToString() },
            };
        }

        if (results.Length > 0)
        {
            yield break;
        }

        var variables = new Dictionary<string, object?> { ["role"] = message.Role.Value, ["content"] = message.Text };
        FunctionCallContent[] calls = [.. message.Contents.OfType<FunctionCallContent>()];
        if (calls.Length > 0)
        {
            variables["tool_calls"] = calls.Select(call => (object?)new Dictionary<string, object?>
            {
                ["id"] = call.CallId,
                ["type"] = "function",
                ["function"] = new Dictionary<string, object?> { ["name"] = call.Name, ["arguments"] = ToolCalls.Plain(call.Arguments) },
            });
        }

        yield return variables;
    }

    /// <summary>What a call's options mean for inference.</summary>
    private sealed class Parameters : IDisposable
    {
        private readonly DefaultSamplingPipeline _pipeline;
        private readonly string[] _stops;

        public Parameters(ChatOptions? options, IHistoryTransform? transform)
        {
            var defaults = new DefaultSamplingPipeline();
            _pipeline = new DefaultSamplingPipeline
            {
                Temperature = options?.Temperature ?? defaults.Temperature,
                TopP = options?.TopP ?? defaults.TopP,
                TopK = options?.TopK ?? defaults.TopK,
                FrequencyPenalty = options?.FrequencyPenalty ?? 0,
                PresencePenalty = options?.PresencePenalty ?? 0,
                Seed = options?.Seed is long seed ? (uint)seed : defaults.Seed,
                Grammar = options?.ResponseFormat switch
                {
                    ChatResponseFormatJson { Schema: JsonElement schema } => Grammar.FromJsonSchema(schema),
                    ChatResponseFormatJson => Grammar.Json(),
                    _ => null,
                },
            };
            _stops = [.. (options?.StopSequences ?? []).Where(stop => !string.IsNullOrEmpty(stop)), .. transform is LLamaTransforms.DefaultHistoryTransform lines ? [$"{lines.UserName}:"] : Array.Empty<string>()];
            Inference = new InferenceParams
            {
                MaxTokens = options?.MaxOutputTokens ?? -1,
                AntiPrompts = _stops,
                SamplingPipeline = _pipeline,
                OverflowStrategy = ContextOverflowStrategy.ThrowException,
            };
        }

        public InferenceParams Inference { get; }

        /// <summary>The text up to the first stop sequence, which is left out. Characters that may begin one are held back.</summary>
        public async IAsyncEnumerable<string> WithoutStops(IAsyncEnumerable<string> pieces)
        {
            string held = "";
            bool stopped = false;
            await foreach (string piece in pieces.ConfigureAwait(false))
            {
                if (stopped)
                {
                    continue;
                }

                held += piece;
                int stop = _stops.Select(s => held.IndexOf(s, StringComparison.Ordinal)).Where(at => at >= 0).DefaultIfEmpty(-1).Min();
                stopped = stop >= 0;
                int ready = stopped ? stop : held.Length - _stops.Select(s => Overlap(held, s)).DefaultIfEmpty(0).Max();
                if (ready > 0)
                {
                    yield return held[..ready];
                }

                held = held[ready..];
            }

            if (!stopped && held.Length > 0)
            {
                yield return held;
            }
        }

        public void Dispose() => _pipeline.Dispose();

        // Length of the longest end of a text that a stop sequence begins with.
        private static int Overlap(string text, string stop)
        {
            for (int length = Math.Min(text.Length, stop.Length - 1); length > 0; length--)
            {
                if (text.AsSpan(text.Length - length).SequenceEqual(stop.AsSpan(0, length)))
                {
                    return length;
                }
            }

            return 0;
        }
    }
}

/// <summary>Tools as templates describe them to models, and the calls that models write.</summary>
internal static class ToolCalls
{
    public static JinjaList Describe(IList<AITool> tools) => new(tools.OfType<AIFunctionDeclaration>().Select(tool => (object?)new JinjaDict
    {
        ["type"] = "function",
        ["function"] = new JinjaDict
        {
            ["name"] = tool.Name,
            ["description"] = tool.Description,
            ["parameters"] = JinjaValues.From(tool.JsonSchema),
        },
    }));

    /// <summary>Arguments as values a template can use.</summary>
    public static Dictionary<string, object?> Plain(IDictionary<string, object?>? arguments) =>
        (arguments ?? new Dictionary<string, object?>()).ToDictionary(item => item.Key, item => item.Value switch
        {
            null or bool or int or long or double or float or string or JsonElement => item.Value,
            var other => other.ToString(),
        });

    /// <summary>The calls in a text: JSON objects with a name and arguments or parameters, alone, in a list, between tool_call tags or after [TOOL_CALLS].</summary>
    public static List<FunctionCallContent> Parse(string text)
    {
        const string Open = "<tool_call>";
        const string Close = "</tool_call>";
        const string Mistral = "[TOOL_CALLS]";
        var calls = new List<FunctionCallContent>();
        string trimmed = text.Trim();
        if (trimmed.Contains(Open, StringComparison.Ordinal))
        {
            foreach (string part in trimmed.Split(Open)[1..])
            {
                int end = part.IndexOf(Close, StringComparison.Ordinal);
                Add(calls, end < 0 ? part : part[..end]);
            }

            return calls;
        }

        foreach (string prefix in new[] { Mistral, "<|python_tag|>" })
        {
            trimmed = trimmed.StartsWith(prefix, StringComparison.Ordinal) ? trimmed[prefix.Length..] : trimmed;
        }

        Add(calls, trimmed);
        return calls;
    }

    private static void Add(List<FunctionCallContent> calls, string text)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            foreach (JsonElement call in document.RootElement.ValueKind == JsonValueKind.Array ? [.. document.RootElement.EnumerateArray()] : new[] { document.RootElement })
            {
                if (call.ValueKind != JsonValueKind.Object || !call.TryGetProperty("name", out JsonElement name) || name.ValueKind != JsonValueKind.String)
                {
                    continue;
                }

                if (!call.TryGetProperty("arguments", out JsonElement arguments))
                {
                    call.TryGetProperty("parameters", out arguments);
                }

                calls.Add(new FunctionCallContent(
                    call.TryGetProperty("id", out JsonElement id) && id.ValueKind == JsonValueKind.String ? id.GetString()! : $"call_{Guid.NewGuid():N}",
                    name.GetString()!,
                    arguments.ValueKind == JsonValueKind.Object ? arguments.EnumerateObject().ToDictionary(item => item.Name, item => (object?)item.Value.Clone()) : null));
            }
        }
        catch (JsonException)
        {
            // Text, and no call.
        }
    }
}
