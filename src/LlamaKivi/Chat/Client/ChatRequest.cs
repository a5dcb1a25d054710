using System.Globalization;
using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>The validated <see cref="ChatOptions"/> of a call. Unsupported options are rejected.</summary>
internal sealed class ChatRequest
{
    /// <summary>Validates options.</summary>
    /// <param name="options">The options; null: none.</param>
    /// <param name="models">Accepted model ids.</param>
    /// <param name="client">The client that is called.</param>
    /// <exception cref="NotSupportedException">An option is not supported; the message names it.</exception>
    /// <exception cref="ArgumentException">The required tool was not given.</exception>
    public ChatRequest(ChatOptions? options, IReadOnlyCollection<string> models, IChatClient client)
    {
        options ??= new ChatOptions();
        Sampling = options as SamplingChatOptions;
        RefuseForeign(options, models, client);
        Instructions = options.Instructions;
        Temperature = Within(options.Temperature, 0, float.MaxValue, nameof(options.Temperature));
        TopP = Within(options.TopP, 0, 1, nameof(options.TopP));
        FrequencyPenalty = Within(options.FrequencyPenalty, -2, 2, nameof(options.FrequencyPenalty));
        PresencePenalty = Within(options.PresencePenalty, -2, 2, nameof(options.PresencePenalty));
        TopK = Within(options.TopK, 0, int.MaxValue, nameof(options.TopK));
        MaxOutputTokens = Within(options.MaxOutputTokens, 0, int.MaxValue, nameof(options.MaxOutputTokens));
        Seed = (uint?)Within(options.Seed, 0L, uint.MaxValue, nameof(options.Seed));
        Stops = [.. (options.StopSequences ?? []).Where(stop => !string.IsNullOrEmpty(stop))];
        Answer = options.ResponseFormat switch
        {
            null or ChatResponseFormatText => null,
            ChatResponseFormatJson json => json,
            var other => throw Refused(nameof(options.ResponseFormat), $"is {other.GetType().Name}; text and JSON are supported"),
        };
        Tools = ReadTools(options);
        AllowsManyCalls = options.AllowMultipleToolCalls ?? true;
        Reasoning = options.Reasoning;
        if (Reasoning?.Output is ReasoningOutput.Summary)
        {
            throw Refused($"{nameof(options.Reasoning)}.{nameof(Reasoning.Output)}", "is Summary, which is not supported; use Full or None");
        }

        AdditionalProperties = options.AdditionalProperties ?? [];
        TopLogprobs = Count(TopLogprobsName);
        Slot = Count(SlotName);
        PrefixKey = AdditionalProperties.TryGetValue(PrefixKeyName, out object? key) ? Convert.ToString(key, CultureInfo.InvariantCulture) : null;
        AdditionalProperties = new(AdditionalProperties.Where(property => property.Key is not (TopLogprobsName or PrefixKeyName or SlotName)));
    }

    /// <summary>Name of the additional property that requests log probabilities.</summary>
    public const string TopLogprobsName = "top_logprobs";

    /// <summary>Name of the additional property with the key of the prefix cache.</summary>
    public const string PrefixKeyName = "prompt_cache_key";

    /// <summary>Name of the additional property with the engine's slot.</summary>
    public const string SlotName = "id_slot";

    /// <summary>Whether a name is no variable of the chat template that a caller can set: settings of the engine, and what the client sets itself.</summary>
    public static bool IsReserved(string name) => name is TopLogprobsName or PrefixKeyName or SlotName || IsOwn(name);

    private static bool IsOwn(string name) => name is "messages" or "tools";

    /// <summary>Further sampling settings; null: none.</summary>
    public SamplingChatOptions? Sampling { get; }

    public string? Instructions { get; }

    public float? Temperature { get; }

    public float? TopP { get; }

    public int? TopK { get; }

    public float? FrequencyPenalty { get; }

    public float? PresencePenalty { get; }

    public int? MaxOutputTokens { get; }

    public uint? Seed { get; }

    public string[] Stops { get; }

    /// <summary>The JSON format of the answer, with or without a schema; null: text.</summary>
    public ChatResponseFormatJson? Answer { get; }

    /// <summary>Tools described to the model; empty if it must not call any.</summary>
    public ToolSet Tools { get; }

    /// <summary>Whether a grammar may be compiled for the answer.</summary>
    public bool HasGrammar => Answer is not null || Tools.Count > 0;

    /// <summary>Whether the answer must be a call.</summary>
    public bool RequiresCall { get; private set; }

    /// <summary>The tool that the answer must call; null: any.</summary>
    public string? RequiredTool { get; private set; }

    public bool AllowsManyCalls { get; }

    public ReasoningOptions? Reasoning { get; }

    /// <summary>Whether the response includes thoughts.</summary>
    public bool GivesThoughts => Reasoning?.Output is not ReasoningOutput.None;

    public AdditionalPropertiesDictionary AdditionalProperties { get; }

    /// <summary>Key of the prefixes that the request shares; null: the common key.</summary>
    public string? PrefixKey { get; }

    /// <summary>Slot of the engine in which the request should run; null: any.</summary>
    public int? Slot { get; }

    /// <summary>Number of most probable tokens to report beside each token; null: no log probabilities.</summary>
    public int? TopLogprobs { get; }

    /// <summary>Creates the error for an unsupported option.</summary>
    public static NotSupportedException Refused(string option, string why) => ErrorOption.Mark(new NotSupportedException($"{nameof(ChatOptions)}.{option} {why}."), option);

    /// <summary>Variables of the chat template from the options, without the messages.</summary>
    /// <exception cref="NotSupportedException">The template does not read an option; the message names it.</exception>
    public Dictionary<string, object?> TemplateVariables(TemplateText? template)
    {
        var variables = new Dictionary<string, object?>(StringComparer.Ordinal);
        foreach ((string name, object? value) in AdditionalProperties)
        {
            variables[name] = IsOwn(name) ? throw Refused($"{nameof(AdditionalProperties)}['{name}']", "would replace the call's own; remove it")
                : template?.Reads(name) == true
                ? ChatJson.ToElement(value, $"{nameof(ChatOptions)}.{nameof(AdditionalProperties)}['{name}']")
                : throw Refused($"{nameof(AdditionalProperties)}['{name}']", "is not read by the model's chat template; remove it");
        }

        if (Reasoning?.Effort is { } effort)
        {
            bool known = false;
            foreach (string name in (string[])["enable_thinking", "thinking"])
            {
                if (template?.Reads(name) == true)
                {
                    known = true;
                    variables[name] = effort != ReasoningEffort.None;
                }
            }

            if (template?.Reads("reasoning_effort") == true && effort != ReasoningEffort.None)
            {
                known = true;
                variables["reasoning_effort"] = effort is ReasoningEffort.Low ? "low" : effort is ReasoningEffort.Medium ? "medium" : "high";
            }

            if (!known)
            {
                throw Refused($"{nameof(Reasoning)}.{nameof(Reasoning.Effort)}", $"is {effort}, but the model's chat template reads no variable for it; leave it unset");
            }
        }

        if (Tools.Count > 0)
        {
            variables["tools"] = Tools.Describe();
        }

        return variables;
    }

    private static void RefuseForeign(ChatOptions options, IReadOnlyCollection<string> models, IChatClient client)
    {
        if (!string.IsNullOrEmpty(options.ConversationId))
        {
            throw Refused(nameof(options.ConversationId), "is set, but the client stores no conversations: give all messages with each call");
        }

        if (!string.IsNullOrEmpty(options.ModelId) && !models.Contains(options.ModelId, StringComparer.OrdinalIgnoreCase))
        {
            throw Refused(nameof(options.ModelId), $"is '{options.ModelId}'; this client's model is '{models.First()}'");
        }

        if (options.AllowBackgroundResponses == true)
        {
            throw Refused(nameof(options.AllowBackgroundResponses), "is true, but there are no background responses; leave it unset");
        }

        if (options.ContinuationToken is not null)
        {
            throw Refused(nameof(options.ContinuationToken), "is set, but there are no background responses to continue; leave it unset");
        }

        if (options.RawRepresentationFactory?.Invoke(client) is { } raw)
        {
            throw Refused(nameof(options.RawRepresentationFactory), $"returned a {raw.GetType()}; it must be unset or return null");
        }
    }

    // A property that is a whole number of 0 or more; null: absent.
    private int? Count(string name) => !AdditionalProperties.TryGetValue(name, out object? value) ? null
        : ChatJson.ToElement(value, name) is { ValueKind: JsonValueKind.Number } number && number.TryGetInt32(out int count) && count >= 0
            ? count
            : throw Refused($"{nameof(ChatOptions.AdditionalProperties)}['{name}']", $"is '{value}'; it must be a whole number of 0 or more");

    private static T? Within<T>(T? value, T least, T most, string option)
        where T : struct, IComparable<T>, IFormattable =>
        value is not { } given || (given.CompareTo(least) >= 0 && given.CompareTo(most) <= 0)
            ? value
            : throw Refused(option, string.Create(CultureInfo.InvariantCulture, $"is {given}; it must be from {least} to {most}"));

    private ToolSet ReadTools(ChatOptions options)
    {
        if (options.Tools is { Count: > 0 } && options.Tools.FirstOrDefault(tool => tool is not AIFunctionDeclaration) is { } foreign)
        {
            throw Refused(nameof(options.Tools), $"has '{foreign.Name}', a {foreign.GetType().Name}; only functions are supported");
        }

        if ((options.Tools ?? []).GroupBy(tool => tool.Name, StringComparer.Ordinal).FirstOrDefault(group => group.Count() > 1) is { Key: var name })
        {
            throw Refused(nameof(options.Tools), $"has several tools named '{name}'; give each its own name");
        }

        var given = new ToolSet((options.Tools ?? []).Cast<AIFunctionDeclaration>());
        switch (options.ToolMode)
        {
            case null or AutoChatToolMode:
                return given;
            case NoneChatToolMode:
                return ToolSet.Empty;
            case RequiredChatToolMode required:
                RequiresCall = true;
                RequiredTool = required.RequiredFunctionName;
                return given.Count == 0 || (RequiredTool is not null && !given.Contains(RequiredTool))
                    ? throw new ArgumentException(
                        $"{nameof(ChatOptions)}.{nameof(options.ToolMode)} requires a call{(RequiredTool is null ? "" : $" of '{RequiredTool}'")}; the tools given are: {string.Join(", ", given.Tools.Select(tool => tool.Name).DefaultIfEmpty("none"))}.", nameof(options))
                    : given;
            case var other:
                throw Refused(nameof(options.ToolMode), $"is {other.GetType().Name}, which is not supported");
        }
    }
}
