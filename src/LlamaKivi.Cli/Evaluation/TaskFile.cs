using System.Text;
using System.Text.Json;
using LlamaKivi.Common;

namespace LlamaKivi.Cli.Evaluation;

/// <summary>A row of a task.</summary>
/// <param name="Line">Its line in the file, from 1.</param>
/// <param name="Messages">What is asked; one message of the user where the file has a prompt.</param>
/// <param name="Answers">Right answers; empty where there are choices.</param>
/// <param name="Choices">What can be chosen; empty where there are answers.</param>
/// <param name="Gold">The right choice.</param>
internal sealed record TaskRow(int Line, IReadOnlyList<(string Role, string Text)> Messages, string[] Answers, string[] Choices, int Gold)
{
    /// <summary>What is asked, as plain text.</summary>
    public string Prompt => string.Join("\n", Messages.Select(m => m.Text));

    /// <summary>A right answer, for examples.</summary>
    public string Right => Choices.Length > 0 ? Choices[Gold] : Answers[0];
}

/// <summary>Reads a task: a file with a JSON object on each line.</summary>
internal static class TaskFile
{
    /// <summary>Reads the rows; what cannot be read is told, with file and line, and left out.</summary>
    /// <param name="path">The file.</param>
    /// <param name="fields">Other names of the fields prompt, messages, answers, choices, gold: "prompt=question,answers=answer".</param>
    /// <param name="format">What the prompt is made of, with fields in braces: "{context}\n\n{input}"; null: the field prompt.</param>
    /// <param name="tell">Told of bad rows.</param>
    public static List<TaskRow> Read(string path, string? fields, string? format, Action<string> tell)
    {
        Dictionary<string, string> names = Names(fields);
        var rows = new List<TaskRow>();
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
                rows.Add(Row(document.RootElement, line, names, format));
            }
            catch (Exception e) when (e is JsonException or FormatException)
            {
                tell($"{path}:{line}: {e.Message} The row is left out.");
            }
        }

        return rows;
    }

    private static Dictionary<string, string> Names(string? fields)
    {
        string[] known = ["prompt", "messages", "answers", "choices", "gold"];
        Dictionary<string, string> names = known.ToDictionary(name => name);
        foreach (string pair in (fields ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            string[] parts = pair.Split('=', StringSplitOptions.TrimEntries);
            if (parts.Length != 2 || !names.ContainsKey(parts[0]))
            {
                throw new UsageException($"--fields: '{pair}' is not NAME=FIELD with a name of {string.Join(", ", known)}");
            }

            names[parts[0]] = parts[1];
        }

        return names;
    }

    private static TaskRow Row(JsonElement row, int line, Dictionary<string, string> names, string? format)
    {
        if (row.ValueKind != JsonValueKind.Object)
        {
            throw new FormatException("this is no JSON object.");
        }

        JsonElement? Field(string name) => row.TryGetProperty(names[name], out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;

        (string, string)[] messages =
            format is not null ? [("user", Fill(format, row))]
            : Field("messages") is { ValueKind: JsonValueKind.Array } list ? [.. list.EnumerateArray().Select(Message)]
            : Field("prompt") is { ValueKind: JsonValueKind.String } prompt ? [("user", prompt.GetString()!)]
            : throw new FormatException($"there is neither '{names["prompt"]}' nor '{names["messages"]}'.");
        string[] choices = Field("choices") is { } all ? Texts(all, names["choices"]) : [];
        if (choices.Length > 0)
        {
            int gold = Field("gold") switch
            {
                { ValueKind: JsonValueKind.Number } number when number.TryGetInt32(out int index) => index,
                { ValueKind: JsonValueKind.String } right => Array.IndexOf(choices, right.GetString()),
                _ => throw new FormatException($"'{names["gold"]}', the number or the text of the right choice, is missing."),
            };
            return gold >= 0 && gold < choices.Length && choices.Length > 1
                ? new TaskRow(line, messages, [], choices, gold)
                : throw new FormatException($"'{names["gold"]}' names none of the {choices.Length} choices, of which at least 2 are wanted.");
        }

        string[] answers = Field("answers") is { } right2 ? Texts(right2, names["answers"]) : [];
        return answers.Length > 0 ? new TaskRow(line, messages, answers, [], -1) : throw new FormatException($"there is neither '{names["answers"]}' nor '{names["choices"]}'.");
    }

    private static (string, string) Message(JsonElement message) =>
        message.ValueKind == JsonValueKind.Object && message.TryGetProperty("role", out JsonElement role) && message.TryGetProperty("content", out JsonElement content)
            && role.ValueKind == JsonValueKind.String && content.ValueKind == JsonValueKind.String
            ? (role.GetString()!, content.GetString()!)
            : throw new FormatException("a message has no 'role' and 'content' that are texts.");

    private static string[] Texts(JsonElement value, string name) => value.ValueKind switch
    {
        JsonValueKind.String => [value.GetString()!],
        JsonValueKind.Number => [value.GetRawText()],
        JsonValueKind.Array when value.EnumerateArray().All(v => v.ValueKind is JsonValueKind.String or JsonValueKind.Number) =>
            [.. value.EnumerateArray().Select(v => v.ValueKind == JsonValueKind.String ? v.GetString()! : v.GetRawText())],
        _ => throw new FormatException($"'{name}' is neither a text nor a list of texts."),
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
                row.TryGetProperty(name, out JsonElement value) && value.ValueKind == JsonValueKind.String ? value.GetString() : throw new FormatException($"there is no text '{name}'."));
            at = close + 1;
        }

        return text.ToString();
    }
}
