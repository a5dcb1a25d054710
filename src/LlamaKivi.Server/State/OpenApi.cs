using System.Reflection;

namespace LlamaKivi.Server;

/// <summary><c>GET /openapi.json</c>: the OpenAPI document, which is part of the assembly.</summary>
internal static class OpenApi
{
    public static async Task HandleAsync(ApiRequest request)
    {
        request.Http.Response.ContentType = "application/json; charset=utf-8";
        Stream document = Assembly.GetExecutingAssembly().GetManifestResourceStream("openapi.json")!;
        await using (document.ConfigureAwait(false))
        {
            await document.CopyToAsync(request.Http.Response.Body, request.Cancellation).ConfigureAwait(false);
        }
    }
}
