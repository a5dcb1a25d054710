using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>The fields of requests that options of a chat call come from.</summary>
internal static class OptionField
{
    private const string Variable = $"{nameof(ChatOptions.AdditionalProperties)}['";

    /// <summary>The field's path; null: none.</summary>
    /// <param name="option">The option, as <see cref="ErrorOption"/> has it.</param>
    /// <param name="field">The field of the conversation, which tells the APIs apart.</param>
    /// <param name="shape">The API's errors.</param>
    public static string? Of(string? option, string field, ErrorShape shape) => option switch
    {
        nameof(ChatOptions.Tools) => "tools",
        nameof(ChatOptions.ResponseFormat) => field == "input" ? "text.format" : "response_format",
        $"{nameof(ChatOptions.Reasoning)}.{nameof(ReasoningOptions.Effort)}" => shape == ErrorShape.Anthropic ? "thinking" : field == "input" ? "reasoning.effort" : "reasoning_effort",
        not null when option.StartsWith(Variable, StringComparison.Ordinal) => $"chat_template_kwargs.{JsonFields.Shortened(option[Variable.Length..^2])}",
        _ => null,
    };
}
