using System.Text.Encodings.Web;
using System.Text.Json;

namespace LlamaKivi.Cli;

internal static class Json
{
    private static readonly JsonWriterOptions Options = new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Writes an array of objects to stdout, one per row; the delegate writes a row's properties.</summary>
    public static void WriteRows<T>(IEnumerable<T> rows, Action<Utf8JsonWriter, T> write) => Write(writer =>
    {
        writer.WriteStartArray();
        foreach (T row in rows)
        {
            writer.WriteStartObject();
            write(writer, row);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    });

    /// <summary>Writes one JSON value to stdout.</summary>
    public static void Write(Action<Utf8JsonWriter> write)
    {
        using Stream stdout = Console.OpenStandardOutput();
        using (var writer = new Utf8JsonWriter(stdout, Options))
        {
            write(writer);
        }

        stdout.Write("\n"u8);
    }
}
