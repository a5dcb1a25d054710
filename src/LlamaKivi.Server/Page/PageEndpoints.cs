using System.Security.Cryptography;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Primitives;
using Microsoft.Net.Http.Headers;

namespace LlamaKivi.Server;

/// <summary>Serves the page at <c>/</c> and its files under <c>/page/</c>, which are resources of this assembly.</summary>
/// <remarks>The page needs no API key; the endpoints that it calls do. Its policy allows scripts, styles and requests of this server alone, and nothing inline.</remarks>
internal static class PageEndpoints
{
    private const string ResourcePrefix = "wwwroot/";
    private const string Policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

    /// <summary>Maps the page.</summary>
    /// <param name="endpoints">The server's routes.</param>
    public static void Map(IEndpointRouteBuilder endpoints)
    {
        foreach (string resource in typeof(PageEndpoints).Assembly.GetManifestResourceNames().Where(name => name.StartsWith(ResourcePrefix, StringComparison.Ordinal)))
        {
            string name = resource[ResourcePrefix.Length..];
            var file = PageFile.Read(resource);
            endpoints.MapMethods(name == "index.html" ? "/" : $"/page/{name}", [HttpMethods.Get, HttpMethods.Head], file.SendAsync);
        }
    }

    private sealed record PageFile(byte[] Content, string ContentType, string ETag)
    {
        public static PageFile Read(string resource)
        {
            using Stream stream = typeof(PageEndpoints).Assembly.GetManifestResourceStream(resource)!;
            byte[] content = new byte[stream.Length];
            stream.ReadExactly(content);
            string type = Path.GetExtension(resource) switch
            {
                ".html" => "text/html; charset=utf-8",
                ".css" => "text/css; charset=utf-8",
                ".js" => "text/javascript; charset=utf-8",
                ".svg" => "image/svg+xml",
                _ => "application/octet-stream",
            };
            return new PageFile(content, type, $"\"{Convert.ToHexStringLower(SHA256.HashData(content).AsSpan(0, 16))}\"");
        }

        public Task SendAsync(HttpContext context)
        {
            HttpRequest request = context.Request;
            HttpResponse response = context.Response;

            // The page's paths are relative: under a path base, its own path must end with a slash.
            if (ContentType.StartsWith("text/html", StringComparison.Ordinal) && !$"{request.PathBase}{request.Path}".EndsWith('/'))
            {
                response.Redirect($"{request.PathBase}{request.Path}/{request.QueryString}", permanent: false);
                return Task.CompletedTask;
            }

            response.Headers.ETag = ETag;
            response.Headers.CacheControl = "no-cache";  // revalidated by the tag, so that an upgraded server shows its own page
            response.Headers.ContentSecurityPolicy = Policy;
            response.Headers.XContentTypeOptions = "nosniff";
            response.Headers["Referrer-Policy"] = "no-referrer";
            if (Matches(request.Headers.IfNoneMatch))
            {
                response.StatusCode = StatusCodes.Status304NotModified;
                return Task.CompletedTask;
            }

            response.ContentType = ContentType;
            response.ContentLength = Content.Length;
            return HttpMethods.IsHead(request.Method) ? Task.CompletedTask : response.Body.WriteAsync(Content, context.RequestAborted).AsTask();
        }

        private bool Matches(StringValues ifNoneMatch) =>
            EntityTagHeaderValue.TryParseList(ifNoneMatch!, out IList<EntityTagHeaderValue>? tags)
            && tags.Any(tag => tag.Equals(EntityTagHeaderValue.Any) || tag.Compare(new EntityTagHeaderValue(ETag), useStrongComparison: false));
    }
}
