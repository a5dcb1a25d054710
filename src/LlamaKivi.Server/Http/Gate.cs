using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server;

/// <summary>Shape of an endpoint's errors.</summary>
internal enum ErrorShape
{
    OpenAi,
    Anthropic,
}

/// <summary>Passes requests to handlers: keys, limits, time, errors.</summary>
internal sealed partial class Gate(ServerState server, ILogger logger)
{
    private readonly ApiKeys _keys = new(server.Options.ApiKeys);
    private int _running;

    /// <summary>Requests in progress.</summary>
    public int Running => Volatile.Read(ref _running);

    /// <summary>Creates the delegate of an endpoint.</summary>
    /// <param name="handle">Handles a request.</param>
    /// <param name="shape">Shape of the errors.</param>
    /// <param name="field">The field whose text becomes the prompt, which errors of its length name.</param>
    /// <param name="isOpen">Whether the endpoint needs no key and answers while the server drains.</param>
    public RequestDelegate Wrap(Func<ApiRequest, Task> handle, ErrorShape shape = ErrorShape.OpenAi, string field = "messages", bool isOpen = false) => async http =>
    {
        int running = Interlocked.Increment(ref _running);
        http.Response.OnStarting(CloseAsync, http);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, server.Drained);
        stop.CancelAfter(server.Options.RequestTimeout);
        var request = new ApiRequest(http, server, stop.Token);
        try
        {
            if (!isOpen)
            {
                _keys.Check(http.Request);
                if (server.IsDraining)
                {
                    throw ApiException.Draining();
                }

                if (running > server.Options.MaxConcurrentRequests)
                {
                    throw new ApiException(
                        StatusCodes.Status429TooManyRequests, $"{server.Options.MaxConcurrentRequests} requests are in progress, the most that the server takes. Retry later.",
                        code: "too_many_requests", retryAfter: TimeSpan.FromSeconds(1));
                }
            }

            await handle(request).ConfigureAwait(false);
        }
        catch (Exception) when (http.RequestAborted.IsCancellationRequested)
        {
            // Nobody reads the answer.
        }
        catch (Exception e)
        {
            await FailAsync(request, Explain(e, field, shape, stop.Token), shape).ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _running);
        }
    };

    // A server that stops must not keep clients on their connections: the next request belongs to another instance.
    private Task CloseAsync(object state)
    {
        var http = (HttpContext)state;
        if (server.IsDraining && !HttpProtocol.IsHttp2(http.Request.Protocol) && !HttpProtocol.IsHttp3(http.Request.Protocol))
        {
            http.Response.Headers.Connection = "close";
        }

        return Task.CompletedTask;
    }

    private ApiException Explain(Exception error, string field, ErrorShape shape, CancellationToken stop)
    {
        if (error is OperationCanceledException && stop.IsCancellationRequested)
        {
            return server.Drained.IsCancellationRequested
                ? ApiException.Draining()
                : new ApiException(StatusCodes.Status504GatewayTimeout, $"The request took longer than {server.Options.RequestTimeout}, the most that the server allows.", code: "timeout");
        }

        ApiException api = ApiException.Of(error, field, shape);
        if (api.Status == StatusCodes.Status500InternalServerError)
        {
            LogFailure(error);
        }

        return api;
    }

    private static async Task FailAsync(ApiRequest request, ApiException error, ErrorShape shape)
    {
        HttpContext http = request.Http;
        HttpResponse response = http.Response;
        if (response.HasStarted)
        {
            // Only event streams start before they are complete.
            await (request.FailStream?.Invoke(error) ?? EventStream.WriteErrorAsync(response, error, shape)).ConfigureAwait(false);
            return;
        }

        response.Clear();
        response.StatusCode = error.Status;
        if (error.RetryAfter is { } time)
        {
            response.Headers.RetryAfter = Math.Ceiling(time.TotalSeconds).ToString(CultureInfo.InvariantCulture);
        }

        if (error.Status == StatusCodes.Status413PayloadTooLarge && HttpProtocol.IsHttp11(http.Request.Protocol))
        {
            // The rest of the body is not read, so the connection cannot take another request.
            response.Headers.Connection = "close";
        }

        if (error.Status == StatusCodes.Status401Unauthorized)
        {
            response.Headers.WWWAuthenticate = "Bearer";
        }

        if (error.Allow is { } methods)
        {
            response.Headers.Allow = methods;
        }

        await ErrorBody.WriteAsync(response, error, shape).ConfigureAwait(false);
    }

    [LoggerMessage(1, LogLevel.Error, "A request failed.")]
    private partial void LogFailure(Exception error);
}
