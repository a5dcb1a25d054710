using System.Buffers;
using System.IO.Pipelines;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

/// <summary>Writes server-sent events.</summary>
internal sealed class EventStream
{
    private readonly HttpResponse _response;

    private EventStream(HttpResponse response) => _response = response;

    /// <summary>Starts the response.</summary>
    public static EventStream Start(HttpResponse response)
    {
        response.ContentType = "text/event-stream";
        response.Headers.CacheControl = "no-cache";
        response.Headers["X-Accel-Buffering"] = "no";  // proxies pass events on at once
        return new EventStream(response);
    }

    /// <summary>Sends an event.</summary>
    /// <param name="value">Its data.</param>
    /// <param name="type">JSON contract of the data.</param>
    /// <param name="name">The event's name; null: none.</param>
    /// <param name="cancellationToken">Cancels the wait for a slow client.</param>
    public Task SendAsync<T>(T value, JsonTypeInfo<T> type, string? name, CancellationToken cancellationToken) =>
        SendAsync(_response, JsonSerializer.SerializeToUtf8Bytes(value, type), name, cancellationToken);

    /// <summary>Writes the last event into the buffer, which is sent after the handler returns, like a JSON response.</summary>
    /// <param name="value">Its data.</param>
    /// <param name="type">JSON contract of the data.</param>
    /// <param name="name">The event's name; null: none.</param>
    public void WriteLast<T>(T value, JsonTypeInfo<T> type, string? name) => Write(_response.BodyWriter, JsonSerializer.SerializeToUtf8Bytes(value, type), name);

    /// <summary>Writes the event that ends an OpenAI stream, like <see cref="WriteLast"/>.</summary>
    public void WriteDone() => Write(_response.BodyWriter, "[DONE]"u8, null);

    /// <summary>Sends an error as the last event of a stream.</summary>
    public static Task WriteErrorAsync(HttpResponse response, ApiException error, ErrorShape shape) =>
        SendAsync(response, ErrorBody.Bytes(error, shape), shape == ErrorShape.Anthropic ? "error" : null, response.HttpContext.RequestAborted);

    private static async Task SendAsync(HttpResponse response, byte[] data, string? name, CancellationToken cancellationToken)
    {
        Write(response.BodyWriter, data, name);
        await response.BodyWriter.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    private static void Write(PipeWriter writer, ReadOnlySpan<byte> data, string? name)
    {
        if (name is not null)
        {
            writer.Write("event: "u8);
            writer.Write(System.Text.Encoding.UTF8.GetBytes(name));
            writer.Write("\n"u8);
        }

        writer.Write("data: "u8);
        writer.Write(data);
        writer.Write("\n\n"u8);
    }
}
