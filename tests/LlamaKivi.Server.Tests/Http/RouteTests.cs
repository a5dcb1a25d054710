using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server.Tests;

/// <summary>Paths and methods that no endpoint takes, and the endpoint of one model.</summary>
public sealed class RouteTests(SharedServer shared) : IClassFixture<SharedServer>
{
    private HttpClient Http => shared.Server.Http;

    [Theory]
    [InlineData("POST", "/v1/nope", HttpStatusCode.NotFound, "unknown_url")]
    [InlineData("GET", "/v1/", HttpStatusCode.NotFound, "unknown_url")]
    [InlineData("GET", "/v1/chat/completions/x", HttpStatusCode.NotFound, "unknown_url")]
    [InlineData("GET", "/v1/models/x", HttpStatusCode.NotFound, "model_not_found")]
    [InlineData("GET", "/v1/chat/completions", HttpStatusCode.MethodNotAllowed, "method_not_allowed")]
    [InlineData("DELETE", "/v1/models/x", HttpStatusCode.MethodNotAllowed, "method_not_allowed")]
    [InlineData("POST", "/v1/models", HttpStatusCode.MethodNotAllowed, "method_not_allowed")]
    [InlineData("GET", "/tokenize", HttpStatusCode.MethodNotAllowed, "method_not_allowed")]
    [InlineData("PUT", "/health", HttpStatusCode.MethodNotAllowed, "method_not_allowed")]
    public async Task What_no_endpoint_takes_has_an_error_body(string method, string path, HttpStatusCode status, string code)
    {
        (JsonElement body, HttpContentHeaders headers) = await AnswerAsync(method, path, status);
        Assert.Equal("application/json", headers.ContentType?.MediaType);
        JsonElement error = body.GetProperty("error");
        Assert.Equal(code, error.GetProperty("code").GetString());
        Assert.Equal("invalid_request_error", error.GetProperty("type").GetString());
        Assert.Equal(status != HttpStatusCode.MethodNotAllowed ? [] : path is "/tokenize" or "/v1/chat/completions" ? ["POST"] : ["GET", "HEAD"], headers.Allow);
    }

    [Theory]
    [InlineData("/health")]
    [InlineData("/v1/models")]
    [InlineData("/metrics")]
    public async Task The_head_of_a_GET_is_given_without_a_body(string path)
    {
        using var request = new HttpRequestMessage(HttpMethod.Head, path);
        using HttpResponseMessage response = await Http.SendAsync(request);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Empty(await response.Content.ReadAsByteArrayAsync());
    }

    [Theory]
    [InlineData("POST", "/v1/messages/x", HttpStatusCode.NotFound, "not_found_error")]
    [InlineData("GET", "/v1/messages", HttpStatusCode.MethodNotAllowed, "invalid_request_error")]
    public async Task Anthropics_paths_have_its_errors(string method, string path, HttpStatusCode status, string type)
    {
        (JsonElement body, _) = await AnswerAsync(method, path, status);
        Assert.Equal(type, body.GetProperty("error").GetProperty("type").GetString());
        Assert.Equal("error", body.GetProperty("type").GetString());
    }

    [Fact]
    public async Task One_model_is_described_as_in_the_list()
    {
        await using TestServer server = await TestServer.StartAsync(options => options.Aliases.Add("Owner/Name"));
        JsonElement listed = JsonElement.Parse(await server.Http.GetStringAsync("/v1/models/")).GetProperty("data")[0];
        string id = listed.GetProperty("id").GetString()!;
        foreach (string name in (string[])[id, id.ToUpperInvariant(), "Owner/Name", "Owner%2FName"])
        {
            Assert.Equal(listed.ToString(), await server.Http.GetStringAsync($"/v1/models/{name}"));
        }
    }

    [Fact]
    public async Task Routes_of_the_app_come_first()
    {
        await using WebApplication app = Builder().Build();
        app.MapLlamaKivi();
        app.Map("/v1/{**path}", (HttpContext _) => "proxy");
        app.MapFallback(() => "page");
        await app.StartAsync();
        using var http = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
        Assert.Equal("proxy", await http.GetStringAsync("/v1/images"));
        Assert.Equal("page", await http.GetStringAsync("/nope"));
        Assert.StartsWith("{\"object\":\"list\"", await http.GetStringAsync("/v1/models"), StringComparison.Ordinal);
        await app.StopAsync();
    }

    [Fact]
    public async Task Preflights_of_browsers_are_answered_where_the_app_enables_them()
    {
        WebApplicationBuilder builder = Builder();
        builder.Services.AddCors();
        await using WebApplication app = builder.Build();
        app.UseCors();
        app.MapLlamaKivi().RequireCors(policy => policy.WithOrigins("https://a.example").WithMethods("POST"));
        await app.StartAsync();
        using var http = new HttpClient { BaseAddress = new Uri(app.Urls.First()) };
        using var request = new HttpRequestMessage(HttpMethod.Options, "/v1/chat/completions");
        request.Headers.Add("Origin", "https://a.example");
        request.Headers.Add("Access-Control-Request-Method", "POST");
        using HttpResponseMessage response = await http.SendAsync(request);
        Assert.Equal(HttpStatusCode.NoContent, response.StatusCode);
        Assert.Equal("https://a.example", Assert.Single(response.Headers.GetValues("Access-Control-Allow-Origin")));
        await app.StopAsync();
    }

    private static WebApplicationBuilder Builder()
    {
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrel(options => options.Listen(IPAddress.Loopback, 0));
        builder.Logging.ClearProviders();
        builder.Services.AddLlamaKivi(options => (options.ModelPath, options.ContextSize, options.Threads, options.GpuLayerCount) = (TestServer.ModelPath, 512, 1, 0));
        return builder;
    }

    private async Task<(JsonElement Body, HttpContentHeaders Headers)> AnswerAsync(string method, string path, HttpStatusCode status)
    {
        using HttpResponseMessage response = await Http.SendAsync(new HttpRequestMessage(new HttpMethod(method), path));
        string text = await response.Content.ReadAsStringAsync();
        Assert.Equal(status, response.StatusCode);
        return (JsonElement.Parse(text), response.Content.Headers);
    }
}
