using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Hosting;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

/// <summary><c>GET /health</c>, <c>/v1/models</c>, <c>/v1/models/{id}</c> and <c>/engine</c>.</summary>
internal static class StateEndpoints
{
    public static async Task HealthAsync(ApiRequest request)
    {
        string status = request.Server.IsDraining ? "draining" : request.Server.Models.Status;
        await JsonResult.WriteAsync(
            request.Http.Response, new HealthStatus(status), ServerJson.Text.HealthStatus, status == "ok" ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable).ConfigureAwait(false);
    }

    public static Task ModelsAsync(ApiRequest request) => JsonResult.WriteAsync(
        request.Http.Response, new ModelList("list", [.. request.Server.Models.Entries.Select(View)]), ServerJson.Text.ModelList);

    public static Task ModelAsync(ApiRequest request)
    {
        // A slash of the name may come encoded, and routing leaves it so.
        string name = (request.Http.Request.RouteValues["id"]?.ToString() ?? "").Replace("%2F", "/", StringComparison.OrdinalIgnoreCase);
        return JsonResult.WriteAsync(request.Http.Response, View(request.Server.Models.Entry(name)), ServerJson.Text.ModelView);
    }

    public static async Task EngineAsync(ApiRequest request)
    {
        string name = request.Http.Request.Query["model"].ToString();
        if (request.Server.Models.Find(name) is not { } model)
        {
            string state = name.Length > 0 ? request.Server.Models.StateOf(name) : request.Server.Models.Entries is [ModelEntry first, ..] ? first.State : ModelEntry.IsLoading;
            await JsonResult.WriteAsync(request.Http.Response, new EngineView(state), ServerJson.Text.EngineView).ConfigureAwait(false);
            return;
        }

        await JsonResult.WriteAsync(request.Http.Response, EngineView.Of(model), ServerJson.Text.EngineView).ConfigureAwait(false);
    }

    public static async Task PropsAsync(ApiRequest request)
    {
        string name = request.Http.Request.Query["model"].ToString();
        using ModelLease lease = await request.Server.Models.AcquireAsync(name, request.Cancellation).ConfigureAwait(false);
        ServedModel model = lease.Model;
        InferenceEngineOptions options = model.Engine.Options;
        KvCacheParams cache = options.KvCache ?? new KvCacheParams();
        var props = new PropsView(
            model.Names[0], Path.GetFileName(options.ModelPath), options.SeqMax, model.Engine.Status.CacheCapacity, model.Weights.Metadata.GetValueOrDefault("tokenizer.chat_template"),
            cache.TypeK.ToString(), cache.TypeV.ToString(), $"LlamaKivi {typeof(StateEndpoints).Assembly.GetName().Version}", model.Weights.ContextSize);
        await JsonResult.WriteAsync(request.Http.Response, props, ServerJson.Text.PropsView).ConfigureAwait(false);
    }

    private static ModelView View(ModelEntry entry) => new(entry.Id, "model", entry.Created, "llamakivi", new ModelStatus(entry.State) { Error = entry.Error });
}

internal sealed record HealthStatus(string Status);

internal sealed record ModelList(string Object, ModelView[] Data);

internal sealed record ModelView(string Id, string Object, long Created, string OwnedBy, ModelStatus Status);

/// <summary>Whether a model is in memory: loaded, loading, unloaded or failed.</summary>
internal sealed record ModelStatus(string Value)
{
    /// <summary>Why the model could not be loaded; absent: it has not failed.</summary>
    public string? Error { get; init; }
}

/// <summary>What <c>GET /engine</c> returns: an engine now.</summary>
/// <param name="State">unloaded, loading, ready, draining, stopped or failed.</param>
internal sealed record EngineView(string State)
{
    /// <summary>The model's name.</summary>
    public string? Model { get; init; }

    /// <summary>Cache types of keys and values, such as "kivi2".</summary>
    public string? CacheTypeK { get; init; }

    public string? CacheTypeV { get; init; }

    /// <summary>Requests in the queue, with a sequence, and with a sequence in host memory.</summary>
    public int Waiting { get; init; }

    public int Running { get; init; }

    public int Preempted { get; init; }

    /// <summary>Maximum number of running requests.</summary>
    public long Sequences { get; init; }

    /// <summary>Tokens in the cache, prefixes included, and its capacity.</summary>
    public long CacheTokens { get; init; }

    public long CacheCapacity { get; init; }

    /// <summary>Bytes of quantized pages, of recent tokens that are not quantized, and of an f16 cache of the same tokens.</summary>
    public long QuantizedBytes { get; init; }

    public long ExactBytes { get; init; }

    [JsonPropertyName("f16_bytes")]
    public long F16Bytes { get; init; }

    /// <summary>Tokens of the last step; 0: no work.</summary>
    public int BatchTokens { get; init; }

    /// <summary>Counts since the engine's start: generated tokens, prompt tokens, those of them that came from the prefix cache, requests, and requests that continued a prefix.</summary>
    public long GeneratedTokens { get; init; }

    public long PromptTokens { get; init; }

    public long CachedPromptTokens { get; init; }

    public long PrefixLookups { get; init; }

    public long PrefixHits { get; init; }

    /// <summary>Seconds since the last step; absent: no work.</summary>
    public double? SecondsSinceStep { get; init; }

    /// <summary>Running requests, in order of admission.</summary>
    public RequestView[] Requests { get; init; } = [];

    public static EngineView Of(ServedModel model)
    {
        InferenceEngine engine = model.Engine;
        Hosting.EngineStatus status = engine.Status;
        KvCacheParams cache = engine.Options.KvCache ?? new KvCacheParams();
        return new EngineView(Name(status.State))
        {
            Model = model.Names[0],
            CacheTypeK = cache.TypeK.ToString(),
            CacheTypeV = cache.TypeV.ToString(),
            Waiting = status.Waiting,
            Running = status.Running,
            Preempted = status.Preempted,
            Sequences = engine.Options.SeqMax,
            CacheTokens = status.CacheTokens,
            CacheCapacity = status.CacheCapacity,
            QuantizedBytes = status.QuantizedBytes,
            ExactBytes = status.ExactBytes,
            F16Bytes = status.F16Bytes,
            BatchTokens = status.Running > 0 ? engine.Totals.BatchTokens : 0,
            GeneratedTokens = engine.Totals.GeneratedTokens,
            PromptTokens = engine.Totals.PromptTokens,
            CachedPromptTokens = engine.Totals.CachedPromptTokens,
            PrefixLookups = engine.Totals.PrefixLookups,
            PrefixHits = engine.Totals.PrefixHits,
            SecondsSinceStep = status.LastStep?.TotalSeconds,
            Requests = [.. engine.Requests.Select(call => new RequestView(call.Prompt, call.Reused, call.Generated, call.Tokens))],
        };
    }

    private static string Name(EngineState state) => state switch
    {
        EngineState.Loading => "loading",
        EngineState.Ready => "ready",
        EngineState.Draining => "draining",
        EngineState.Stopped => "stopped",
        _ => "failed",
    };
}

/// <summary>Tokens of a running request: its prompt, what of it came from the prefix cache, the generated ones, and those in the KV cache.</summary>
internal sealed record RequestView(int PromptTokens, int ReusedTokens, int GeneratedTokens, int CachedTokens);

/// <summary>What <c>GET /props</c> returns, with the names of llama.cpp's server.</summary>
internal sealed record PropsView(string ModelAlias, string ModelPath, long TotalSlots, long NCtx, string? ChatTemplate, string CacheTypeK, string CacheTypeV, string BuildInfo, long? NCtxTrain);
