using System.Diagnostics.Metrics;
using LlamaKivi.Hosting;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Registers inference engines with a host's services.</summary>
public static class LlamaKiviServiceCollectionExtensions
{
    /// <summary>Registers an <see cref="InferenceEngine"/>, its <see cref="IChatClient"/>, embedding generator and <see cref="EngineReranker"/> with options from configuration.</summary>
    /// <param name="services">The services.</param>
    /// <param name="section">Section whose keys are the properties of <see cref="InferenceEngineOptions"/>, such as "ModelPath" and "KvCache".</param>
    public static IServiceCollection AddLlamaKivi(this IServiceCollection services, IConfigurationSection section) => Add(services, null, section, null);

    /// <summary>Registers an <see cref="InferenceEngine"/>, its <see cref="IChatClient"/>, embedding generator and <see cref="EngineReranker"/>.</summary>
    /// <param name="services">The services.</param>
    /// <param name="configure">Sets the options.</param>
    public static IServiceCollection AddLlamaKivi(this IServiceCollection services, Action<InferenceEngineOptions> configure) => Add(services, null, null, configure);

    /// <summary>Registers an engine, its chat client, embedding generator and reranker under a key, one of several models, with options from configuration.</summary>
    /// <param name="services">The services.</param>
    /// <param name="key">Key of the services.</param>
    /// <param name="section">Section whose keys are the properties of <see cref="InferenceEngineOptions"/>.</param>
    public static IServiceCollection AddKeyedLlamaKivi(this IServiceCollection services, string key, IConfigurationSection section)
    {
        ArgumentException.ThrowIfNullOrEmpty(key);
        return Add(services, key, section, null);
    }

    /// <summary>Registers an engine, its chat client, embedding generator and reranker under a key, one of several models.</summary>
    /// <param name="services">The services.</param>
    /// <param name="key">Key of the services.</param>
    /// <param name="configure">Sets the options.</param>
    public static IServiceCollection AddKeyedLlamaKivi(this IServiceCollection services, string key, Action<InferenceEngineOptions> configure)
    {
        ArgumentException.ThrowIfNullOrEmpty(key);
        return Add(services, key, null, configure);
    }

    private static IServiceCollection Add(IServiceCollection services, string? key, IConfigurationSection? section, Action<InferenceEngineOptions>? configure)
    {
        ArgumentNullException.ThrowIfNull(services);
        if (section is null)
        {
            ArgumentNullException.ThrowIfNull(configure);
        }

        OptionsBuilder<InferenceEngineOptions> options = services.AddOptions<InferenceEngineOptions>(key);
        if (section is not null)
        {
            options.Bind(section);
        }

        if (configure is not null)
        {
            options.Configure(configure);
        }

        options.ValidateOnStart();
        services.AddSingleton<IValidateOptions<InferenceEngineOptions>>(new InferenceEngineOptionsValidator(key, section?.Path));
        services.AddMetrics();
        services.TryAddSingleton<EngineGroup>();
        if (key is null)
        {
            services.TryAddSingleton(provider => Create(provider, null));
            services.AddSingleton<IHostedService>(provider => provider.GetRequiredService<InferenceEngine>());
            services.TryAddSingleton(provider => provider.GetRequiredService<InferenceEngine>().AsChatClient());
            services.TryAddSingleton(provider => provider.GetRequiredService<InferenceEngine>().AsEmbeddingGenerator());
            services.TryAddSingleton(provider => provider.GetRequiredService<InferenceEngine>().AsReranker());
        }
        else
        {
            services.TryAddKeyedSingleton(key, (provider, _) => Create(provider, key));
            services.AddSingleton<IHostedService>(provider => provider.GetRequiredKeyedService<InferenceEngine>(key));
            services.TryAddKeyedSingleton(key, (provider, _) => provider.GetRequiredKeyedService<InferenceEngine>(key).AsChatClient());
            services.TryAddKeyedSingleton(key, (provider, _) => provider.GetRequiredKeyedService<InferenceEngine>(key).AsEmbeddingGenerator());
            services.TryAddKeyedSingleton(key, (provider, _) => provider.GetRequiredKeyedService<InferenceEngine>(key).AsReranker());
        }

        return services;
    }

    private static InferenceEngine Create(IServiceProvider provider, string? key)
    {
        EngineGroup group = provider.GetRequiredService<EngineGroup>();
        var engine = new InferenceEngine(
            provider.GetRequiredService<IOptionsMonitor<InferenceEngineOptions>>().Get(key ?? Options.Options.DefaultName),
            provider.GetService<ILogger<InferenceEngine>>(),
            provider.GetService<IMeterFactory>())
        {
            Group = group,
            ServedAs = key,
        };
        group.Add(engine);
        return engine;
    }
}
