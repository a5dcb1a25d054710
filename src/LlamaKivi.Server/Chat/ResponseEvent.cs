using System.Text.Json.Serialization;

namespace LlamaKivi.Server;

/// <summary>An event of a streamed response.</summary>
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

    public LogprobView[]? Logprobs { get; init; }

    public string? Name { get; init; }

    public string? Arguments { get; init; }
}

/// <summary>An error in a streamed response.</summary>
/// <param name="Type">Type of the event.</param>
/// <param name="SequenceNumber">Number of the event.</param>
/// <param name="Code">Short name of the error.</param>
/// <param name="Message">What is wrong.</param>
/// <param name="Param">The request's field.</param>
/// <param name="Error">The same as an object, at which the clients of Python and JavaScript throw.</param>
internal sealed record ResponseErrorEvent(
    string Type, int SequenceNumber, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Code, string Message,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Param, ErrorDetail Error);
