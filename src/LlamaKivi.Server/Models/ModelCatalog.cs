using LlamaKivi.Hosting;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

/// <summary>The models of a server.</summary>
internal abstract class ModelCatalog
{
    /// <summary>All models, loaded or not, with their states.</summary>
    public abstract IReadOnlyList<ModelEntry> Entries { get; }

    /// <summary>The models in memory.</summary>
    public abstract IReadOnlyList<ServedModel> Loaded { get; }

    /// <summary>The status that GET /health returns: ok, loading, stalled, draining or failed.</summary>
    public abstract string Status { get; }

    /// <summary>Cancellation tokens; when the models begin to drain, at least one is cancelled.</summary>
    public abstract IEnumerable<CancellationToken> Draining { get; }

    /// <summary>A model in memory; null: none of that name.</summary>
    /// <param name="name">The model's name; null or empty: the first.</param>
    public virtual ServedModel? Find(string? name) => Find(Loaded, name);

    /// <summary>The state of a model that is not in memory.</summary>
    /// <param name="name">The model's name.</param>
    /// <exception cref="ApiException">There is no such model.</exception>
    public abstract string StateOf(string name);

    /// <summary>The entry of a model.</summary>
    /// <param name="name">The model's name, or another name of a loaded model.</param>
    /// <exception cref="ApiException">There is no such model.</exception>
    public ModelEntry Entry(string name)
    {
        IReadOnlyList<ModelEntry> entries = Entries;
        string id = Find(name)?.Names[0] ?? name;
        return entries.FirstOrDefault(entry => string.Equals(entry.Id, id, StringComparison.OrdinalIgnoreCase)) ?? throw Unknown(name, entries.Select(entry => entry.Id));
    }

    /// <summary>A model of a list; null: none of that name.</summary>
    protected static ServedModel? Find(IReadOnlyList<ServedModel> models, string? name) =>
        models.FirstOrDefault(model => string.IsNullOrEmpty(name) || model.Names.Contains(name, StringComparer.OrdinalIgnoreCase));

    /// <summary>Finds a model and keeps it in memory until the lease is disposed.</summary>
    /// <param name="name">The model's name; null or empty: the only model.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    /// <exception cref="ApiException">There is no such model, or it cannot be used now.</exception>
    public abstract ValueTask<ModelLease> AcquireAsync(string? name, CancellationToken cancellationToken);

    protected static ApiException Unknown(string name, IEnumerable<string> known) => new(
        StatusCodes.Status404NotFound, $"The model '{name}' does not exist. Models: {string.Join(", ", known)}.", "model", "model_not_found");

    protected static ApiException Unnamed(IEnumerable<string> known) =>
        ApiException.Bad("model", $"model is missing. Models: {string.Join(", ", known)}.", "missing_required_parameter");
}

/// <summary>A model: its name, the write time of its file (Unix time), its state, and why it could not be loaded.</summary>
internal sealed record ModelEntry(string Id, long Created, string State, string? Error = null)
{
    public const string Unloaded = "unloaded";
    public const string IsLoading = "loading";
    public const string IsLoaded = "loaded";
    public const string IsFailed = "failed";
}

/// <summary>Keeps a model in memory and delays the end of its engine's drain.</summary>
internal sealed class ModelLease(ServedModel model, Action? release = null) : IDisposable
{
    private readonly IDisposable _hold = model.Engine.Hold();
    private readonly Action? _release = release;
    private bool _disposed;

    public ServedModel Model => model;

    public void Dispose()
    {
        if (!Interlocked.Exchange(ref _disposed, true))
        {
            _hold.Dispose();
            _release?.Invoke();
        }
    }
}

/// <summary>The engines that are registered with the app's services.</summary>
internal sealed class RegisteredModels : ModelCatalog
{
    private readonly ServedModel[] _models;
    private readonly Func<string, InferenceEngine?> _byKey;

    /// <summary>Serves engines.</summary>
    /// <param name="engines">The engines.</param>
    /// <param name="byKey">Finds an engine by the key of its registration.</param>
    /// <param name="options">The server's options.</param>
    public RegisteredModels(IReadOnlyList<InferenceEngine> engines, Func<string, InferenceEngine?> byKey, LlamaKiviServerOptions options)
    {
        _models = [.. engines.Select(engine => new ServedModel(engine, options, [.. engines.Count == 1 ? options.Aliases : []]))];
        _byKey = byKey;
    }

    public override IReadOnlyList<ModelEntry> Entries => [.. _models.Select(Entry)];

    public override IReadOnlyList<ServedModel> Loaded => [.. _models.Where(model => model.Engine.LoadedWeights is not null)];

    public override string Status
    {
        get
        {
            EngineState[] states = [.. _models.Select(model => model.Engine.Status.State)];
            return states.Contains(EngineState.Failed) ? "failed"
                : Array.Exists(_models, model => model.Engine.LoadedWeights is null) ? "loading"
                : Array.TrueForAll(states, state => state == EngineState.Ready) ? Array.Exists(_models, model => model.Engine.IsStalled) ? "stalled" : "ok"
                : "draining";
        }
    }

    public override IEnumerable<CancellationToken> Draining => _models.Select(model => model.Engine.Draining);

    public override ServedModel? Find(string? name) => string.IsNullOrEmpty(name) ? base.Find(name)
        : Loaded.FirstOrDefault(model => model.Engine == _byKey(name)) ?? base.Find(name);

    public override string StateOf(string name) => Missing(name) is { } model ? Entry(model).State : throw Unknown(name, Entries.Select(entry => entry.Id));

    public override ValueTask<ModelLease> AcquireAsync(string? name, CancellationToken cancellationToken)
    {
        IEnumerable<string> names = Entries.Select(entry => entry.Id);
        ServedModel? found = !string.IsNullOrEmpty(name) ? Array.Find(_models, model => model.Engine == _byKey(name)) ?? Find(Loaded, name)
            : _models.Length == 1 ? _models[0]
            : throw Unnamed(names);
        InferenceEngine engine = (found ?? Missing(name!))?.Engine ?? throw Unknown(name!, names);
        return engine.Status.State switch
        {
            EngineState.Failed => throw ApiException.LoadFailed(engine.Options.ModelPath, engine.Failure!),
            EngineState.Draining or EngineState.Stopped => throw ApiException.Draining(),
            _ => found is null || engine.LoadedWeights is null ? throw ApiException.Loading() : new(new ModelLease(found)),
        };
    }

    // The model of a name among those that are not loaded. Any of them may have it: their files hold their names.
    private ServedModel? Missing(string name)
    {
        ServedModel[] missing = [.. _models.Where(model => model.Engine.LoadedWeights is null)];
        return Array.Find(missing, model => string.Equals(Entry(model).Id, name, StringComparison.OrdinalIgnoreCase)) ?? missing.FirstOrDefault();
    }

    private static ModelEntry Entry(ServedModel model)
    {
        if (model.Engine.LoadedWeights is not null)
        {
            return new ModelEntry(model.Names[0], model.Created, ModelEntry.IsLoaded);
        }

        string path = model.Engine.Options.ModelPath;
        return model.Engine.Failure is { } failure
            ? new ModelEntry(Path.GetFileNameWithoutExtension(path), model.Created, ModelEntry.IsFailed, ApiException.LoadReason(path, failure))
            : new ModelEntry(Path.GetFileNameWithoutExtension(path), model.Created, ModelEntry.IsLoading);
    }
}
