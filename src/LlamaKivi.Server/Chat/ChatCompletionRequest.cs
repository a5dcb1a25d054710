using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>A request of <c>/v1/chat/completions</c>.</summary>
/// <param name="Call">The chat call.</param>
/// <param name="Stream">Whether the answer is streamed.</param>
/// <param name="IncludeUsage">Whether the stream ends with the usage.</param>
internal sealed record ChatCompletionRequest(ChatCall Call, bool Stream, bool IncludeUsage)
{
    private static readonly string[] Harmless =
    [
        "user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prediction", "cache_prompt",
    ];

    /// <summary>Reads a request.</summary>
    /// <exception cref="ApiException">A field is wrong; the error names it.</exception>
    public static ChatCompletionRequest Read(JsonFields body, LlamaKiviServerOptions server, ServedModel model)
    {
        body.Accept("model");
        body.Accept(Harmless);
        RequestMetadata.Read(body);
        var options = new SamplingChatOptions();
        SamplingFields.Read(body, options, model.Weights.Tokenizer.VocabularySize);
        options.StopSequences = SamplingFields.Stops(body, "stop");
        long? most = body.Whole("max_tokens", 1, int.MaxValue);
        options.MaxOutputTokens = SamplingFields.MaxTokens(body.Whole("max_completion_tokens", 1, int.MaxValue) ?? most, server);
        int choices = (int)(body.Whole("n", 1, server.MaxChoices) ?? 1);
        bool stream = body.Flag("stream") ?? false;
        bool includeUsage = ReadStreamOptions(body, stream);
        options.ResponseFormat = ReadFormat(body);
        ReadTools(body, options);
        ReadReasoning(body, options);
        ReadLogprobs(body, options);
        if (SamplingFields.Slot(body, model) is { } slot)
        {
            (options.AdditionalProperties ??= [])[ChatRequest.SlotName] = slot;
        }

        body.AcceptOnly("modalities", value => value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(item => JsonFields.Is(item, "text")), "use [\"text\"]");
        body.AcceptOnly("verbosity", "medium", "leave it out");
        List<ChatMessage> messages = ChatMessageReader.Read(body);
        body.RefuseUnknown();
        options.StreamsCalls = stream;
        return new ChatCompletionRequest(new ChatCall(messages, options) { Choices = choices }, stream, includeUsage);
    }

    /// <summary>Reads <c>response_format</c>.</summary>
    public static ChatResponseFormat? ReadFormat(JsonFields body) => body.Object("response_format") is { } format
        ? ReadFormat(format, () => format.Object("json_schema") ?? throw format.Missing("json_schema"))
        : null;

    /// <summary>Reads a response format.</summary>
    /// <param name="format">The format.</param>
    /// <param name="schema">The fields of its schema.</param>
    public static ChatResponseFormat? ReadFormat(JsonFields format, Func<JsonFields> schema)
    {
        string type = format.OneOf("type", "text", "json_object", "json_schema") ?? throw format.Missing("type");
        ChatResponseFormat? result = type switch
        {
            "json_object" => ChatResponseFormat.ForJsonSchema(JsonElement.Parse("""{"type":"object"}""")),
            "json_schema" => ReadSchema(schema()),
            _ => null,
        };
        format.RefuseUnknown();
        return result;
    }

    private static ChatResponseFormatJson ReadSchema(JsonFields schema)
    {
        schema.Accept("strict");
        JsonElement value = schema.Required("schema");
        if (value.ValueKind is not (JsonValueKind.Object or JsonValueKind.True or JsonValueKind.False))
        {
            throw JsonFields.Wrong(schema.Path("schema"), value, "a JSON schema");
        }

        ChatResponseFormatJson format = ChatResponseFormat.ForJsonSchema(value, schema.Text("name"), schema.Text("description"));
        schema.RefuseUnknown();
        return format;
    }

    private static void ReadLogprobs(JsonFields body, ChatOptions options)
    {
        bool asked = body.Flag("logprobs") ?? false;
        long? top = body.Whole("top_logprobs", 0, 20);
        if (top > 0 && !asked)
        {
            throw ApiException.Bad("top_logprobs", "top_logprobs is set, but logprobs is not true; remove it, or set logprobs.", "invalid_value");
        }

        if (asked)
        {
            (options.AdditionalProperties ??= [])[ChatRequest.TopLogprobsName] = (int)(top ?? 0);
        }
    }

    private static bool ReadStreamOptions(JsonFields body, bool stream)
    {
        if (body.Object("stream_options") is not { } options)
        {
            return false;
        }

        if (!stream)
        {
            throw ApiException.Bad("stream_options", "stream_options is set, but stream is not true; remove it, or set stream.", "invalid_value");
        }

        options.Accept("include_obfuscation");
        bool includeUsage = options.Flag("include_usage") ?? false;
        options.RefuseUnknown();
        return includeUsage;
    }

    /// <summary>The functions of the field "tools"; null: none.</summary>
    /// <param name="body">The request.</param>
    /// <param name="read">Reads an entry behind its type.</param>
    public static List<AITool>? ReadFunctions(JsonFields body, Func<JsonFields, AITool> read)
    {
        var tools = new List<AITool>();
        foreach ((JsonElement value, string path) in body.Items("tools") ?? [])
        {
            var tool = new JsonFields(value, path);
            if (tool.OneOf("type", "function") is null)
            {
                throw tool.Missing("type");
            }

            tools.Add(read(tool));
        }

        return tools.Count > 0 ? tools : null;
    }

    private static void ReadTools(JsonFields body, ChatOptions options)
    {
        options.Tools = ReadFunctions(body, tool =>
        {
            AITool function = ReadTool(tool.Object("function") ?? throw tool.Missing("function"));
            tool.RefuseUnknown();
            return function;
        });
        ReadChoice(body, options, choice =>
        {
            JsonFields function = choice.Object("function") ?? throw choice.Missing("function");
            string name = function.RequiredName("name");
            function.RefuseUnknown();
            return name;
        });
    }

    /// <summary>Reads whether and how often functions are called.</summary>
    /// <param name="body">The request.</param>
    /// <param name="options">The options, with their tools.</param>
    /// <param name="readName">Reads the name of the only function that may be called, behind its type.</param>
    public static void ReadChoice(JsonFields body, ChatOptions options, Func<JsonFields, string> readName)
    {
        options.AllowMultipleToolCalls = body.Flag("parallel_tool_calls");
        if (body.TryGet("tool_choice", out JsonElement choice))
        {
            options.ToolMode = choice.ValueKind == JsonValueKind.Object
                ? Named(new JsonFields(choice, "tool_choice"), readName)
                : body.OneOf("tool_choice", "none", "auto", "required") switch
                {
                    "none" => ChatToolMode.None,
                    "required" => ChatToolMode.RequireAny,
                    _ => ChatToolMode.Auto,
                };
        }

        CheckChoice(options);
    }

    /// <summary>Reads a function's name, description and parameters.</summary>
    public static AIFunctionDeclaration ReadTool(JsonFields function)
    {
        function.Accept("strict");
        string name = function.RequiredName("name");
        JsonElement? parameters = function.TryGet("parameters", out JsonElement schema) ? new JsonFields(schema, function.Path("parameters")).Element : null;
        AIFunctionDeclaration tool = ChatCall.Tool(name, function.Text("description"), parameters);
        function.RefuseUnknown();
        return tool;
    }

    /// <summary>Checks that a required call has its tool.</summary>
    public static void CheckChoice(ChatOptions options)
    {
        if (options.ToolMode is RequiredChatToolMode required
            && (options.Tools is null || (required.RequiredFunctionName is { } name && !options.Tools.Any(tool => tool.Name == name))))
        {
            throw ApiException.Bad("tool_choice", $"tool_choice requires a call{(required.RequiredFunctionName is { } n ? $" of '{n}'" : "")}, but tools has no such function.", "invalid_value");
        }
    }

    private static RequiredChatToolMode Named(JsonFields choice, Func<JsonFields, string> readName)
    {
        if (choice.OneOf("type", "function") is null)
        {
            throw choice.Missing("type");
        }

        string name = readName(choice);
        choice.RefuseUnknown();
        return ChatToolMode.RequireSpecific(name);
    }

    private static void ReadReasoning(JsonFields body, ChatOptions options)
    {
        options.Reasoning = Reasoning(body.OneOf("reasoning_effort", "none", "minimal", "low", "medium", "high", "xhigh"));
        if (body.Object("chat_template_kwargs") is { } variables)
        {
            options.AdditionalProperties ??= [];
            foreach (JsonProperty variable in variables.Element.EnumerateObject())
            {
                if (ChatRequest.IsReserved(variable.Name))
                {
                    throw ApiException.Bad(variables.Path(variable.Name), $"{variables.Path(variable.Name)} is no variable that a request can set; remove it.", "unsupported_value");
                }

                options.AdditionalProperties[variable.Name] = variable.Value;
            }
        }
    }

    /// <summary>Converts an effort to options.</summary>
    public static ReasoningOptions? Reasoning(string? effort) => effort is null ? null : new ReasoningOptions
    {
        Effort = effort switch
        {
            "none" => ReasoningEffort.None,
            "minimal" or "low" => ReasoningEffort.Low,
            "medium" => ReasoningEffort.Medium,
            "high" => ReasoningEffort.High,
            _ => ReasoningEffort.ExtraHigh,
        },
    };
}
