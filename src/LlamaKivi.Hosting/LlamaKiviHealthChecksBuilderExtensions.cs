using LlamaKivi.Hosting;
using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Adds health checks of inference engines.</summary>
public static class LlamaKiviHealthChecksBuilderExtensions
{
    /// <summary>Checks an engine: degraded while the model loads or the engine drains; unhealthy, with the reason, if the model failed to load, or while no step completes for
    /// <see cref="InferenceEngineOptions.StallTimeout"/> although requests are running.</summary>
    /// <param name="builder">The health checks.</param>
    /// <param name="key">Key of the engine; null: the one without a key.</param>
    /// <param name="name">Name of the check; null: "llamakivi", and "llamakivi:KEY" with a key.</param>
    /// <param name="tags">Tags of the check, such as "ready".</param>
    public static IHealthChecksBuilder AddLlamaKivi(this IHealthChecksBuilder builder, string? key = null, string? name = null, IEnumerable<string>? tags = null)
    {
        ArgumentNullException.ThrowIfNull(builder);
        return builder.Add(new HealthCheckRegistration(
            name ?? (key is null ? "llamakivi" : $"llamakivi:{key}"),
            provider => new InferenceEngineHealthCheck(key is null ? provider.GetRequiredService<InferenceEngine>() : provider.GetRequiredKeyedService<InferenceEngine>(key)),
            failureStatus: null,
            tags));
    }
}
