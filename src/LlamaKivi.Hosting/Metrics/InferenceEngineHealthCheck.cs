using Microsoft.Extensions.Diagnostics.HealthChecks;

namespace LlamaKivi.Hosting;

/// <summary>Health of an engine: healthy while it serves, degraded while it loads or drains, unhealthy if it failed, stopped or stalled.</summary>
internal sealed class InferenceEngineHealthCheck(InferenceEngine engine) : IHealthCheck
{
    public Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default) => Task.FromResult(Check());

    private HealthCheckResult Check()
    {
        EngineStatus status = engine.Status;
        var data = new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["state"] = status.State.ToString(),
            ["waiting"] = status.Waiting,
            ["running"] = status.Running,
            ["preempted"] = status.Preempted,
            ["cacheTokens"] = status.CacheTokens,
            ["cacheCapacity"] = status.CacheCapacity,
        };
        return status.State switch
        {
            EngineState.Ready or EngineState.Draining when engine.IsStalled => HealthCheckResult.Unhealthy(
                $"The engine has made no step for {status.LastStep?.TotalSeconds:F0} s while requests were running.", data: data),
            EngineState.Ready => HealthCheckResult.Healthy($"{engine.ModelName} is ready.", data),
            EngineState.Loading => HealthCheckResult.Degraded("The model is loading.", data: data),
            EngineState.Draining => HealthCheckResult.Degraded("The engine is stopping; running requests finish.", data: data),
            EngineState.Failed => HealthCheckResult.Unhealthy($"The model cannot be served: {engine.Failure?.Message}", engine.Failure, data),
            _ => HealthCheckResult.Unhealthy("The engine has stopped.", data: data),
        };
    }
}
