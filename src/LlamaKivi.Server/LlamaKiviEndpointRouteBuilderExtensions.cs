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
        Get("/health", gate.Wrap(StateEndpoints.HealthAsync, isOpen: true));
        Get("/v1/health", gate.Wrap(StateEndpoints.HealthAsync, isOpen: true));
        Get("/v1/models", gate.Wrap(StateEndpoints.ModelsAsync));
        Get("/engine", gate.Wrap(StateEndpoints.EngineAsync));
        Get("/props", gate.Wrap(StateEndpoints.PropsAsync));
        Get("/slots", gate.Wrap(SlotEndpoints.ListAsync));
        Post("/slots/{id}", gate.Wrap(SlotEndpoints.ActAsync));
        var metrics = new Metrics();
        lifetime.ApplicationStopped.Register(metrics.Dispose);
        Get("/metrics", gate.Wrap(metrics.HandleAsync));
        Post("/v1/chat/completions", gate.Wrap(ChatCompletions.HandleAsync));
        Post("/v1/responses", gate.Wrap(Responses.HandleAsync, field: "input"));
        Post("/v1/completions", gate.Wrap(Completions.HandleAsync, field: "prompt"));
        Post("/v1/embeddings", gate.Wrap(Embeddings.HandleAsync, field: "input"));
        Post("/v1/rerank", gate.Wrap(Embeddings.RerankAsync, field: "documents"));
        Post("/tokenize", gate.Wrap(Tokens.TokenizeAsync));
        Post("/detokenize", gate.Wrap(Tokens.DetokenizeAsync));
        Post("/apply-template", gate.Wrap(Tokens.ApplyTemplateAsync));
        Post("/v1/messages", gate.Wrap(Messages.HandleAsync, ErrorShape.Anthropic));
        Post("/v1/messages/count_tokens", gate.Wrap(Messages.CountAsync, ErrorShape.Anthropic));
        Get("/openapi.json", gate.Wrap(OpenApi.HandleAsync, isOpen: true));
        PageEndpoints.Map(group);
        return group;

        void Get(string path, RequestDelegate handle) => group.MapGet(path, handle);

        void Post(string path, RequestDelegate handle) => group.MapPost(path, handle);
    }
}
