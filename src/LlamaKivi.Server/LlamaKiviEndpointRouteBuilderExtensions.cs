using System.Diagnostics.Metrics;
using LlamaKivi.Hosting;
using LlamaKivi.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Microsoft.AspNetCore.Builder;

/// <summary>Maps the endpoints of LlamaKivi.</summary>
public static class LlamaKiviEndpointRouteBuilderExtensions
{
    // Fallback routes of ASP.NET Core have the greatest order.
    private const int LastButFallback = int.MaxValue - 1;

    /// <summary>Maps the endpoints over all engines that <c>AddLlamaKivi</c> and <c>AddKeyedLlamaKivi</c> registered, or over the folder of <c>AddLlamaKiviModels</c>.</summary>
    /// <param name="endpoints">The app.</param>
    /// <param name="configure">Sets the options; null: defaults.</param>
    /// <returns>Adds conventions, such as authorization or CORS, to all endpoints.</returns>
    /// <exception cref="InvalidOperationException">No engine is registered, or engines beside a folder of models.</exception>
    /// <exception cref="ArgumentException">An option is out of range; the message names it.</exception>
    public static IEndpointConventionBuilder MapLlamaKivi(this IEndpointRouteBuilder endpoints, Action<LlamaKiviServerOptions>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(endpoints);
        var options = new LlamaKiviServerOptions();
        configure?.Invoke(options);
        options.Validate();
        IServiceProvider services = endpoints.ServiceProvider;
        InferenceEngine[] engines = [.. services.GetServices<IHostedService>().OfType<InferenceEngine>()];
        if (services.GetService<FolderModels>() is { } folder)
        {
            folder.Server = options;
            return engines.Length == 0
                ? Map(endpoints, options, folder)
                : throw new InvalidOperationException("Engines and a folder of models are registered. Call either AddLlamaKivi or AddLlamaKiviModels.");
        }

        return engines.Length > 0
            ? Map(endpoints, options, new RegisteredModels(engines, key => services.GetKeyedService<InferenceEngine>(key), options))
            : throw new InvalidOperationException("No engine is registered. Call builder.Services.AddLlamaKivi(...) before the app is built.");
    }

    internal static IEndpointConventionBuilder Map(IEndpointRouteBuilder endpoints, LlamaKiviServerOptions options, ModelCatalog models)
    {
        IServiceProvider services = endpoints.ServiceProvider;
        IHostApplicationLifetime lifetime = services.GetRequiredService<IHostApplicationLifetime>();
        var gate = new Gate(new ServerState(options, models, lifetime), services.GetRequiredService<ILoggerFactory>().CreateLogger("LlamaKivi.Server"));
        RouteGroupBuilder group = endpoints.MapGroup("");
        Get("/health", StateEndpoints.HealthAsync, isOpen: true);
        Get("/v1/health", StateEndpoints.HealthAsync, isOpen: true);
        Get("/v1/models", StateEndpoints.ModelsAsync);
        Get("/v1/models/{**id}", StateEndpoints.ModelAsync);
        Get("/engine", StateEndpoints.EngineAsync);
        Get("/props", StateEndpoints.PropsAsync);
        Get("/slots", SlotEndpoints.ListAsync);
        Post("/slots/{id}", SlotEndpoints.ActAsync);
        var metrics = new Metrics(services.GetService<IMeterFactory>());
        lifetime.ApplicationStopped.Register(metrics.Dispose);
        Get("/metrics", metrics.HandleAsync);
        Post("/v1/chat/completions", ChatCompletions.HandleAsync);
        Post("/v1/responses", Responses.HandleAsync, field: "input");
        Post("/v1/completions", Completions.HandleAsync, field: "prompt");
        Post("/v1/embeddings", Embeddings.HandleAsync, field: "input");
        Post("/v1/rerank", Embeddings.RerankAsync, field: "documents");
        Post("/tokenize", Tokens.TokenizeAsync);
        Post("/detokenize", Tokens.DetokenizeAsync);
        Post("/apply-template", Tokens.ApplyTemplateAsync);
        Post("/v1/messages", Messages.HandleAsync, ErrorShape.Anthropic);
        Post("/v1/messages/count_tokens", Messages.CountAsync, ErrorShape.Anthropic);
        Get("/openapi.json", OpenApi.HandleAsync, isOpen: true);

        // Only paths of the APIs: others may be the app's.
        Unknown("/v1/{**path}");
        Unknown("/v1/messages/{**path}", ErrorShape.Anthropic);
        PageEndpoints.Map(group);
        return group;

        void Get(string path, Func<ApiRequest, Task> handle, bool isOpen = false)
        {
            group.MapMethods(path, [HttpMethods.Get, HttpMethods.Head], gate.Wrap(handle, isOpen: isOpen));  // load balancers ask for the head
            Others(path, $"{HttpMethods.Get}, {HttpMethods.Head}");
        }

        void Post(string path, Func<ApiRequest, Task> handle, ErrorShape shape = ErrorShape.OpenAi, string field = "messages")
        {
            group.MapPost(path, gate.Wrap(handle, shape, field));
            Others(path, HttpMethods.Post, shape);
        }

        // The app's own routes come first, and so do routes with a method.
        void Others(string path, string methods, ErrorShape shape = ErrorShape.OpenAi) =>
            group.Map(path, gate.Wrap(request => throw ApiException.WrongMethod(request.Http.Request, methods), shape, isOpen: true)).WithOrder(LastButFallback);

        void Unknown(string path, ErrorShape shape = ErrorShape.OpenAi) =>
            group.Map(path, gate.Wrap(request => throw ApiException.UnknownPath(request.Http.Request), shape, isOpen: true)).WithOrder(LastButFallback);
    }
}
