using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace LlamaKivi.Server;

/// <summary>A request that passed the gate.</summary>
/// <param name="http">The HTTP request and response.</param>
/// <param name="server">The server.</param>
/// <param name="cancellation">Cancelled when the client goes away, the time is over or the server has drained.</param>
internal sealed class ApiRequest(HttpContext http, ServerState server, CancellationToken cancellation)
{
    public HttpContext Http => http;

    public ServerState Server => server;

    public CancellationToken Cancellation => cancellation;

    /// <summary>Ends a stream that failed; null: with the error as its last event.</summary>
    public Func<ApiException, Task>? FailStream { get; set; }

    /// <summary>Key of the prefixes that the request shares where the engine isolates them: its API key with its <c>prompt_cache_key</c>; null: the common key.</summary>
    public string? PrefixKey(JsonFields body)
    {
        string? tenant = server.Options.ApiKeys.Count > 0 ? ApiKeys.Given(http.Request) : null;
        string? conversation = body.Text("prompt_cache_key");
        return tenant is null && conversation is null ? null : $"{tenant}\n{conversation}";
    }

    /// <summary>Reads the body, a JSON object.</summary>
    public async Task<JsonFields> ReadBodyAsync()
    {
        HttpRequest request = http.Request;
        if (!request.HasJsonContentType())
        {
            // Browsers send other types across origins without asking.
            throw new ApiException(StatusCodes.Status415UnsupportedMediaType, "The body must be JSON. Send it with 'Content-Type: application/json'.", code: "unsupported_media_type");
        }

        long limit = server.Options.MaxBodyBytes;
        if (http.Features.Get<IHttpMaxRequestBodySizeFeature>() is { IsReadOnly: false } size)
        {
            size.MaxRequestBodySize = limit;
        }

        if (request.ContentLength > limit)
        {
            throw new ApiException(StatusCodes.Status413PayloadTooLarge, $"The body has {request.ContentLength} bytes; at most {limit} are allowed.", code: "request_too_large");
        }

        // A request that has not arrived when the server begins to stop is a new one.
        using var arrival = CancellationTokenSource.CreateLinkedTokenSource(cancellation, server.Stopping);
        try
        {
            return new JsonFields(await RequestJson.ReadAsync(request.Body, arrival.Token).ConfigureAwait(false), "");
        }
        catch (OperationCanceledException) when (server.IsDraining)
        {
            throw ApiException.Draining();
        }
    }
}
