using System.Diagnostics.Metrics;
using LlamaKivi.Hosting;
using LlamaKivi.Server;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Registers a folder of models.</summary>
public static class LlamaKiviModelsServiceCollectionExtensions
{
    /// <summary>Registers a folder of models, which <c>MapLlamaKivi</c> serves and loads when requests ask for them, with options from configuration.</summary>
    /// <param name="services">The services.</param>
    /// <param name="section">Section whose keys are the properties of <see cref="ModelFolderOptions"/>.</param>
    public static IServiceCollection AddLlamaKiviModels(this IServiceCollection services, IConfigurationSection section)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentNullException.ThrowIfNull(section);
        return Add(services, section.Path, options => options.Bind(section));
    }

    /// <summary>Registers a folder of models, which <c>MapLlamaKivi</c> serves and loads when requests ask for them.</summary>
    /// <param name="services">The services.</param>
    /// <param name="configure">Sets the options.</param>
    public static IServiceCollection AddLlamaKiviModels(this IServiceCollection services, Action<ModelFolderOptions> configure)
    {
        ArgumentNullException.ThrowIfNull(services);
        ArgumentNullException.ThrowIfNull(configure);
        return Add(services, null, options => options.Configure(configure));
    }

    private static IServiceCollection Add(IServiceCollection services, string? path, Action<OptionsBuilder<ModelFolderOptions>> set)
    {
        OptionsBuilder<ModelFolderOptions> options = services.AddOptions<ModelFolderOptions>();
        set(options);
        options.ValidateOnStart();
        services.AddSingleton<IValidateOptions<ModelFolderOptions>>(new Validator(path));
        services.AddMetrics();
        services.TryAddSingleton(provider => provider.GetRequiredService<IOptions<ModelFolderOptions>>().Value);
        services.TryAddSingleton(provider => new FolderModels(
            provider.GetRequiredService<ModelFolderOptions>(),
            (engine, name) => new InferenceEngine(engine, provider.GetService<ILogger<InferenceEngine>>(), provider.GetService<IMeterFactory>()) { ServedAs = name },
            provider.GetRequiredService<ILogger<FolderModels>>()));
        services.AddHostedService<ModelFolderService>();
        return services;
    }

    private sealed class Validator(string? section) : IValidateOptions<ModelFolderOptions>
    {
        public ValidateOptionsResult Validate(string? name, ModelFolderOptions options)
        {
            string[] errors = [.. options.Errors().Select(error => section is null ? error : $"{section}:{error}")];
            return errors.Length == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(errors);
        }
    }
}
