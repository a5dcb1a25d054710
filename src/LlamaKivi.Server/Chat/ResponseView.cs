using System.Text.Json;
using System.Text.Json.Serialization;

namespace LlamaKivi.Server;

/// <summary>A response, with the settings of its request.</summary>
internal sealed record ResponseView
{
    public string Id { get; init; } = $"resp_{Guid.NewGuid():N}";

    public string Object { get; } = "response";

    public long CreatedAt { get; init; } = DateTimeOffset.UtcNow.ToUnixTimeSeconds();

    public string Status { get; init; } = "in_progress";

    public bool Background { get; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public ResponseError? Error { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public IncompleteDetails? IncompleteDetails { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Instructions { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long? MaxOutputTokens { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public long? MaxToolCalls { get; init; }

    public required JsonElement Metadata { get; init; }

    public string Model { get; init; } = "";

    public OutputItem[] Output { get; init; } = [];

    public bool ParallelToolCalls { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? PreviousResponseId { get; }

    public string? PromptCacheKey { get; init; }

    public required ReasoningView Reasoning { get; init; }

    public string? SafetyIdentifier { get; init; }

    /// <summary>Nothing is stored, whatever the request asks for.</summary>
    public bool Store { get; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public float? Temperature { get; init; }

    public required TextView Text { get; init; }

    public required JsonElement ToolChoice { get; init; }

    public JsonElement[] Tools { get; init; } = [];

    public int TopLogprobs { get; init; }

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public float? TopP { get; init; }

    public string Truncation { get; } = "disabled";

    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public ResponseUsage? Usage { get; init; }

    public string? User { get; init; }
}

internal sealed record ResponseError(string Code, string Message);

internal sealed record IncompleteDetails(string Reason);

internal sealed record ReasoningView([property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Effort, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Summary);

internal sealed record TextView(JsonElement Format, JsonElement? Verbosity);

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

internal sealed record OutputPart(string Type, string Text, string[]? Annotations, LogprobView[]? Logprobs);
