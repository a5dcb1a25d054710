using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

/// <summary>Writes errors in the shape of OpenAI's and Anthropic's APIs.</summary>
internal static class ErrorBody
{
    public static async Task WriteAsync(HttpResponse response, ApiException error, ErrorShape shape)
    {
        response.ContentType = "application/json";
        await response.Body.WriteAsync(Bytes(error, shape), response.HttpContext.RequestAborted).ConfigureAwait(false);
    }

    public static byte[] Bytes(ApiException error, ErrorShape shape) => shape == ErrorShape.Anthropic
        ? JsonSerializer.SerializeToUtf8Bytes(new MessagesError("error", new MessagesErrorDetail(error.MessagesType, error.Message)), ServerJson.Text.MessagesError)
        : JsonSerializer.SerializeToUtf8Bytes(new ErrorResponse(new ErrorDetail(error.Message, error.Type, error.Param, error.Code)), ServerJson.Text.ErrorResponse);
}

internal sealed record ErrorResponse(ErrorDetail Error);

internal sealed record ErrorDetail(string Message, string Type, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Param, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? Code);

internal sealed record MessagesError(string Type, MessagesErrorDetail Error);

internal sealed record MessagesErrorDetail(string Type, string Message);
