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

    /// <summary>Sends the event that ends an OpenAI stream.</summary>
    public Task SendDoneAsync(CancellationToken cancellationToken) => SendAsync(_response, "[DONE]"u8.ToArray(), null, cancellationToken);

    /// <summary>Sends an error as the last event of a stream.</summary>
    public static Task WriteErrorAsync(HttpResponse response, ApiException error, ErrorShape shape) =>
        SendAsync(response, ErrorBody.Bytes(error, shape), shape == ErrorShape.Anthropic ? "error" : null, response.HttpContext.RequestAborted);

    private static async Task SendAsync(HttpResponse response, byte[] data, string? name, CancellationToken cancellationToken)
    {
        PipeWriter writer = response.BodyWriter;
        if (name is not null)
        {
            writer.Write("event: "u8);
            writer.Write(System.Text.Encoding.UTF8.GetBytes(name));
            writer.Write("\n"u8);
        }

        writer.Write("data: "u8);
        writer.Write(data);
        writer.Write("\n\n"u8);
        await writer.FlushAsync(cancellationToken).ConfigureAwait(false);
    }
}
