using System.Text;
using System.Text.Json;

namespace LlamaKivi.Evaluation;

/// <summary>Field names of the rows in a task file.</summary>
/// <param name="Prompt">The prompt: a string.</param>
/// <param name="Messages">A chat instead of the prompt: objects with the strings "role" and "content".</param>
/// <param name="Answers">Correct answers: a string, a number or a list of them.</param>
/// <param name="Choices">Choices: a list of at least two.</param>
/// <param name="Gold">The correct choice: its index from 0, or its string.</param>
public sealed record TaskFieldNames(string Prompt = "prompt", string Messages = "messages", string Answers = "answers", string Choices = "choices", string Gold = "gold");

/// <summary>A row that could not be read or scored.</summary>
/// <param name="Line">Line in the file, from 1.</param>
/// <param name="Reason">The reason, as a sentence.</param>
public sealed record SkippedRow(int Line, string Reason);

/// <summary>A task: a file with one JSON object per line.</summary>
/// <param name="Rows">The rows, in file order.</param>
/// <param name="Skipped">Lines that could not be read as rows.</param>
public sealed record TaskFile(IReadOnlyList<TaskRow> Rows, IReadOnlyList<SkippedRow> Skipped)
{
    /// <summary>Reads a task file. Invalid lines are reported in <see cref="Skipped"/>; empty lines are ignored.</summary>
    /// <param name="path">Path of the file.</param>
    /// <param name="fields">Field names; null: the defaults.</param>
    /// <param name="promptFormat">Prompt with field names in braces, such as "{context}\n\n{input}"; null: the field <see cref="TaskFieldNames.Prompt"/>.</param>
    /// <exception cref="IOException">The file cannot be read, or is a folder.</exception>
    public static TaskFile Read(string path, TaskFieldNames? fields = null, string? promptFormat = null)
    {
        if (Directory.Exists(path))
        {
            // Opening a folder as a file fails with "access denied".
            throw new IOException($"cannot read '{path}': it is a folder; name a file with one JSON object per line");
        }

        fields ??= new TaskFieldNames();
        var rows = new List<TaskRow>();
        var skipped = new List<SkippedRow>();
        int line = 0;
        foreach (string text in File.ReadLines(path))
        {
            line++;
            if (string.IsNullOrWhiteSpace(text))
            {
                continue;
            }

            try
            {
                using JsonDocument document = JsonDocument.Parse(text);
                rows.Add(Row(document.RootElement, line, fields, promptFormat));
            }
            catch (Exception e) when (e is JsonException or FormatException)
            {
                skipped.Add(new SkippedRow(line, e.Message));
            }
        }

        return new TaskFile(rows, skipped);
    }

    private static TaskRow Row(JsonElement row, int line, TaskFieldNames names, string? format)
    {
        if (row.ValueKind != JsonValueKind.Object)
        {
            throw new FormatException("the line is not a JSON object.");
        }

        JsonElement? Field(string name) => row.TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

        ChatMessageText[] messages =
            format is not null ? [new("user", Fill(format, row))]
            : Field(names.Messages) is { ValueKind: JsonValueKind.Array } list ? [.. list.EnumerateArray().Select(Message)]
            : Field(names.Prompt) is { ValueKind: JsonValueKind.String } prompt ? [new("user", prompt.GetString()!)]
            : throw new FormatException($"'{names.Prompt}' and '{names.Messages}' are both missing.");
        string[] choices = Field(names.Choices) is { } all ? Texts(all, names.Choices) : [];
        if (choices.Length > 0)
        {
            int gold = Field(names.Gold) switch
            {
                { ValueKind: JsonValueKind.Number } number when number.TryGetInt32(out int index) => index,
                { ValueKind: JsonValueKind.String } right => Array.IndexOf(choices, right.GetString()),
                _ => throw new FormatException($"'{names.Gold}', the index or the text of the correct choice, is missing."),
            };
            return gold >= 0 && gold < choices.Length && choices.Length > 1
                ? new TaskRow(line, messages, [], choices, gold)
                : throw new FormatException($"'{names.Gold}' names none of the {choices.Length} choices; at least 2 are needed.");
        }

        string[] answers = Field(names.Answers) is { } right2 ? Texts(right2, names.Answers) : [];
        return answers.Length > 0 ? new TaskRow(line, messages, answers, [], -1) : throw new FormatException($"'{names.Answers}' and '{names.Choices}' are both missing.");
    }

    private static ChatMessageText Message(JsonElement message) =>
        message.ValueKind == JsonValueKind.Object && message.TryGetProperty("role", out JsonElement role) && message.TryGetProperty("content", out JsonElement content)
            && role.ValueKind == JsonValueKind.String && content.ValueKind == JsonValueKind.String
            ? new ChatMessageText(role.GetString()!, content.GetString()!)
            : throw new FormatException("a message lacks the strings 'role' and 'content'.");

    private static string[] Texts(JsonElement value, string name) => value.ValueKind switch
    {
        JsonValueKind.String => [value.GetString()!],
        JsonValueKind.Number => [value.GetRawText()],
        JsonValueKind.Array when value.EnumerateArray().All(v => v.ValueKind is JsonValueKind.String or JsonValueKind.Number) =>
            [.. value.EnumerateArray().Select(v => v.ValueKind == JsonValueKind.String ? v.GetString()! : v.GetRawText())],
        _ => throw new FormatException($"'{name}' is neither a string nor a list of strings."),
    };

    private static string Fill(string format, JsonElement row)
    {
        var text = new StringBuilder();
        for (int at = 0; at < format.Length;)
        {
            int open = format.IndexOf('{', at);
            int close = open < 0 ? -1 : format.IndexOf('}', open);
            if (close < 0)
            {
                return text.Append(format, at, format.Length - at).ToString();
            }

            string name = format[(open + 1)..close];
            text.Append(format, at, open - at).Append(
                row.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : throw new FormatException($"the string '{name}' is missing."));
            at = close + 1;
        }

        return text.ToString();
    }
}
