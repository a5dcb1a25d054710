using LlamaKivi.Exceptions;
using LlamaKivi.Hosting;
using LlamaKivi.Sampling;
using LlamaKivi.Templates;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>An error that a client receives.</summary>
/// <param name="status">HTTP status.</param>
/// <param name="message">What is wrong, and what to do.</param>
/// <param name="param">Name of the request's field; null: none.</param>
/// <param name="code">Short name of the error; null: none.</param>
/// <param name="retryAfter">Time until the request may succeed; null: unknown.</param>
internal sealed class ApiException(int status, string message, string? param = null, string? code = null, TimeSpan? retryAfter = null) : Exception(JsonFields.Shortened(message, MostCharacters))
{
    private const int MostCharacters = 2000;  // a request may have megabytes that a message would repeat

    public int Status => status;

    public string? Param => param;

    public string? Code => code;

    public TimeSpan? RetryAfter => retryAfter;

    /// <summary>The methods that the path takes; null: the error is another.</summary>
    public string? Allow { get; init; }

    /// <summary>The error's type in OpenAI's API.</summary>
    public string Type => status switch
    {
        StatusCodes.Status429TooManyRequests => "rate_limit_error",
        >= 500 => "server_error",
        _ => "invalid_request_error",
    };

    /// <summary>The error's type in Anthropic's API.</summary>
    public string MessagesType => status switch
    {
        StatusCodes.Status401Unauthorized => "authentication_error",
        StatusCodes.Status404NotFound => "not_found_error",
        StatusCodes.Status413PayloadTooLarge => "request_too_large",
        StatusCodes.Status429TooManyRequests => "rate_limit_error",
        StatusCodes.Status503ServiceUnavailable => "overloaded_error",
        StatusCodes.Status504GatewayTimeout => "timeout_error",
        >= 500 => "api_error",
        _ => "invalid_request_error",
    };

    /// <summary>A field has a value that is not allowed.</summary>
    public static ApiException Bad(string? param, string message, string? code = null) => new(StatusCodes.Status400BadRequest, message, param, code);

    /// <summary>There is no such endpoint.</summary>
    public static ApiException UnknownPath(HttpRequest request) => new(
        StatusCodes.Status404NotFound, $"There is no {request.Method} {JsonFields.Shortened(request.Path.ToString())}; GET /openapi.json lists the endpoints.", code: "unknown_url");

    /// <summary>The endpoint takes another method.</summary>
    public static ApiException WrongMethod(HttpRequest request, string methods) => new(
        StatusCodes.Status405MethodNotAllowed, $"{JsonFields.Shortened(request.Path.ToString())} takes {methods}, not {request.Method}.", code: "method_not_allowed")
    {
        Allow = methods,
    };

    /// <summary>The server stops.</summary>
    public static ApiException Draining() => new(
        StatusCodes.Status503ServiceUnavailable, "The server is stopping. Send the request to another instance, or after the restart.", code: "server_draining");

    /// <summary>The model is not loaded yet.</summary>
    public static ApiException Loading() => new(
        StatusCodes.Status503ServiceUnavailable, "The model is loading. Retry when GET /health returns 200.", code: "model_loading", retryAfter: TimeSpan.FromSeconds(1));

    /// <summary>The model's file could not be loaded.</summary>
    public static ApiException LoadFailed(string path, Exception error) => new(
        StatusCodes.Status503ServiceUnavailable, $"The model could not be loaded: {LoadReason(path, error)}", "model", "model_failed");

    /// <summary>Why a model's file could not be loaded, with the file's name; for clients, whom the server's folders do not concern.</summary>
    public static string LoadReason(string path, Exception error)
    {
        string file = Path.GetFileName(path);
        string reason = OperatorWords.Of(ErrorText.Of(error).ReplaceLineEndings(" ")).Replace(path, file, StringComparison.Ordinal);
        return reason.Contains(file, StringComparison.Ordinal) ? reason : $"{file}: {reason}";
    }

    /// <summary>A text is longer than the cache or the context.</summary>
    public static ApiException TooLong(string field, ContextOverflowException error) => Bad(field, OperatorWords.Of(error.Message), "context_length_exceeded");

    /// <summary>Converts an error of the engine.</summary>
    /// <param name="error">The error.</param>
    /// <param name="field">The field whose text became the prompt.</param>
    /// <param name="shape">The API's errors.</param>
    public static ApiException Of(Exception error, string field, ErrorShape shape) => error switch
    {
        ApiException api => api,
        EngineBusyException { RetryAfter: { } time } busy => new(StatusCodes.Status429TooManyRequests, OperatorWords.Of(busy.Message), code: "queue_full", retryAfter: time),
        EngineBusyException => Draining(),
        ContextOverflowException overflow => TooLong(field, overflow),
        GrammarException grammar => Bad(OptionField.Of(ErrorOption.Of(grammar) ?? nameof(ChatOptions.ResponseFormat), field, shape), grammar.Message),
        MissingTemplateException => Bad(
            "tools", "The model's chat template does not describe tools to the model, or the model's file has none. Use a model with a template that reads tools, or send no tools."),
        TemplateException template => Bad(field, template.Message),
        NotSupportedException when ErrorOption.Of(error) == ErrorOption.Messages => Bad(  // readers refuse other contents
            field, $"{field} has tool calls, tool results or thoughts where the model's chat template takes text alone. Remove them, or use a model with a template that has tools."),
        NotSupportedException when ErrorOption.Of(error) is { } option && OptionField.Of(option, field, shape) is { } named =>
            Bad(named, error.Message.Replace($"{nameof(ChatOptions)}.{option}", named, StringComparison.Ordinal)),
        NotSupportedException or ArgumentException => Bad(null, ErrorText.Of(error)),
        BadHttpRequestException { StatusCode: StatusCodes.Status413PayloadTooLarge } => new(StatusCodes.Status413PayloadTooLarge, "The request body is too large.", code: "request_too_large"),
        BadHttpRequestException bad => new(bad.StatusCode, bad.Message),
        OutOfMemoryException => new(StatusCodes.Status503ServiceUnavailable, "The server has not enough memory for the request. Send a smaller one, or retry later.", code: "out_of_memory"),
        _ => new(StatusCodes.Status500InternalServerError, "The server failed to answer the request; its log has the details."),
    };
}
