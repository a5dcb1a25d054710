using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>One answer of a chat, collected from its updates.</summary>
internal sealed class ChatAnswer
{
    private readonly StringBuilder _text = new();
    private readonly StringBuilder _thoughts = new();

    public string Text => _text.ToString();

    public string Thoughts => _thoughts.ToString();

    public List<FunctionCallContent> Calls { get; } = [];

    public UsageDetails Usage { get; private set; } = new();

    public ChatFinishReason Finish { get; private set; } = ChatFinishReason.Stop;

    /// <summary>The stop sequence that ended the text; null: none.</summary>
    public string? StopSequence { get; private set; }

    /// <summary>The stop sequence of an update; null: none.</summary>
    public static string? StopSequenceOf(ChatResponseUpdate update) => update.AdditionalProperties?.GetValueOrDefault(ResponseWriter.StopSequenceName) as string;

    /// <summary>Adds an update.</summary>
    public void Add(ChatResponseUpdate update)
    {
        foreach (AIContent content in update.Contents)
        {
            switch (content)
            {
                case TextContent text:
                    _text.Append(text.Text);
                    break;
                case TextReasoningContent thought:
                    _thoughts.Append(thought.Text);
                    break;
                case FunctionCallContent call:
                    Calls.Add(call);
                    break;
                case UsageContent usage:
                    Usage = usage.Details;
                    break;
            }
        }

        Finish = update.FinishReason ?? Finish;
        StopSequence = StopSequenceOf(update) ?? StopSequence;
    }

    /// <summary>A call's arguments as JSON.</summary>
    public static string ArgumentsText(FunctionCallContent call)
    {
        var text = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(text, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            WriteArguments(writer, call);
        }

        return Encoding.UTF8.GetString(text.WrittenSpan);
    }

    /// <summary>A call's arguments as a JSON object.</summary>
    public static JsonElement ArgumentsObject(FunctionCallContent call)
    {
        using JsonDocument document = JsonDocument.Parse(ArgumentsText(call));
        return document.RootElement.Clone();
    }

    private static void WriteArguments(Utf8JsonWriter writer, FunctionCallContent call)
    {
        writer.WriteStartObject();
        foreach ((string name, object? value) in call.Arguments ?? new Dictionary<string, object?>(StringComparer.Ordinal))
        {
            writer.WritePropertyName(name);
            ChatJson.ToElement(value, name).WriteTo(writer);
        }

        writer.WriteEndObject();
    }
}
