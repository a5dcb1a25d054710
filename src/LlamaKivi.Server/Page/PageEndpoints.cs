using System.Reflection;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace LlamaKivi.Server;

/// <summary>The page at <c>/</c>: the files of <c>wwwroot</c>, which are part of the assembly.</summary>
internal static class PageEndpoints
{
    private const string Folder = "wwwroot/";
    private const string Start = "index.html";

    /// <summary>Maps every file to its path, and <c>/</c> to <c>index.html</c>.</summary>
    public static void Map(IEndpointRouteBuilder endpoints)
    {
        Assembly assembly = typeof(PageEndpoints).Assembly;
        foreach (string resource in assembly.GetManifestResourceNames().Where(name => name.StartsWith(Folder, StringComparison.Ordinal)))
        {
            string path = resource[Folder.Length..];
            byte[] content = Read(assembly, resource);
            Task WriteAsync(HttpContext http)
            {
                http.Response.ContentType = ContentType(path);
                http.Response.ContentLength = content.Length;
                http.Response.Headers.CacheControl = "no-cache";
                http.Response.Headers.ContentSecurityPolicy = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'";
                http.Response.Headers.XContentTypeOptions = "nosniff";
                return http.Response.Body.WriteAsync(content, http.RequestAborted).AsTask();
            }

            endpoints.MapGet("/" + path, (RequestDelegate)WriteAsync);
            if (path == Start)
            {
                endpoints.MapGet("/", (RequestDelegate)WriteAsync);
            }
        }
    }

    private static byte[] Read(Assembly assembly, string resource)
    {
        using Stream stream = assembly.GetManifestResourceStream(resource)!;
        var content = new byte[stream.Length];
        stream.ReadExactly(content);
        return content;
    }

    private static string ContentType(string path) => Path.GetExtension(path) switch
    {
        ".html" => "text/html; charset=utf-8",
        ".css" => "text/css; charset=utf-8",
        ".js" => "text/javascript; charset=utf-8",
        ".svg" => "image/svg+xml",
        ".json" => "application/json",
        ".png" => "image/png",
        ".ico" => "image/x-icon",
        _ => "application/octet-stream",
    };
}
