using System.Diagnostics;
using LlamaKivi.Hosting;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Server;

/// <summary>The models of a folder: loaded on demand, unloaded when idle or when another needs their memory.</summary>
/// <remarks>A lease keeps a model in memory. Loads run one at a time, because each changes the free memory.</remarks>
internal sealed partial class FolderModels : ModelCatalog, IAsyncDisposable
{
    private readonly ModelFolderOptions _options;
    private readonly ModelFolder _folder;
    private readonly ILogger _logger;
    private readonly Func<InferenceEngineOptions, string, InferenceEngine> _create;
    private readonly Lock _gate = new();
    private readonly SemaphoreSlim _turn = new(1, 1);  // of loads and unloads
    private readonly Dictionary<string, FolderModel> _models = new(StringComparer.OrdinalIgnoreCase);  // in memory or loading
    private readonly Dictionary<string, LoadFailure> _failures = new(StringComparer.Ordinal);          // by path
    private readonly CancellationTokenSource _draining = new();
    private volatile bool _stopped;

    /// <summary>Serves a folder.</summary>
    /// <param name="options">The options.</param>
    /// <param name="create">Creates the engine of a model.</param>
    /// <param name="logger">Receives a line for each load and unload.</param>
    public FolderModels(ModelFolderOptions options, Func<InferenceEngineOptions, string, InferenceEngine> create, ILogger logger) =>
        (_options, _folder, _create, _logger) = (options, new ModelFolder(options.Folder), create, logger);

    /// <summary>Options of the endpoints; set when they are mapped.</summary>
    public LlamaKiviServerOptions Server { get; set; } = new();

    public override IReadOnlyList<ModelEntry> Entries => [.. _folder.Files().Select(FileEntry)];

    public override IEnumerable<CancellationToken> Draining => [_draining.Token];

    public override IReadOnlyList<ServedModel> Loaded
    {
        get
        {
            lock (_gate)
            {
                return [.. _models.Values.Where(model => model.Served.Engine.LoadedWeights is not null).Select(model => model.Served)];
            }
        }
    }

    public override string Status => _stopped ? "draining" : Loaded.Any(model => model.Engine.IsStalled) ? "stalled" : _folder.Exists ? "ok" : "failed";

    public override string StateOf(string name) => FileEntry(PathOf(name)).State;

    public override async ValueTask<ModelLease> AcquireAsync(string? name, CancellationToken cancellationToken)
    {
        string path = PathOf(name);
        if (_stopped)
        {
            throw ApiException.Draining();
        }

        FileVersion file = FileVersion.Of(path);
        FolderModel? model;
        lock (_gate)
        {
            model = _models.TryGetValue(Name(path), out FolderModel? found) && !found.IsReplaced(file) ? found : null;
            model?.Take();
        }

        // The load goes on when its first request is cancelled; others may wait for it.
        if (model is null)
        {
            var wait = new LoadWait();
            try
            {
                model = await Task.Run(() => LoadAsync(path, wait), CancellationToken.None).WaitAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                Leave(wait);
                throw;
            }
        }

        try
        {
            await model.Served.Engine.WaitUntilReadyAsync(cancellationToken).ConfigureAwait(false);
            return new ModelLease(model.Served, () => Release(model));
        }
        catch (Exception e)
        {
            Release(model);
            throw e is OperationCanceledException ? e : e is EngineBusyException ? ApiException.Draining() : ApiException.LoadFailed(path, e);
        }
    }

    /// <summary>Unloads the models that no request has used for at least this time.</summary>
    public async Task UnloadIdleAsync(TimeSpan time)
    {
        await _turn.WaitAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            while (Oldest(time) is { } idle)
            {
                await UnloadAsync(idle).ConfigureAwait(false);
            }
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Refuses new requests and drains all models at the same time; running requests have the engines' drain timeout to finish. Loads in progress fail. The models stay in memory.</summary>
    /// <param name="cancellationToken">Ends the wait.</param>
    public async Task DrainAsync(CancellationToken cancellationToken) =>
        await Task.WhenAll((await RefuseAsync().ConfigureAwait(false)).Select(model => model.Served.Engine.DrainAsync(cancellationToken))).ConfigureAwait(false);

    /// <summary>Drains and unloads all models.</summary>
    public async Task StopAsync()
    {
        FolderModel[] models = await RefuseAsync().ConfigureAwait(false);
        lock (_gate)
        {
            _models.Clear();
        }

        // A load under way ends with its engine.
        await Task.WhenAll(models.Select(StopAsync)).ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync().ConfigureAwait(false);
        _turn.Dispose();
        _draining.Dispose();
    }

    // Returns the models in memory; no others are loaded.
    private async Task<FolderModel[]> RefuseAsync()
    {
        FolderModel[] models;
        lock (_gate)
        {
            _stopped = true;
            models = [.. _models.Values];
        }

        await _draining.CancelAsync().ConfigureAwait(false);
        return models;
    }

    private static string Name(string path) => Path.GetFileNameWithoutExtension(path);

    private static long Created(string path) => new DateTimeOffset(File.GetLastWriteTimeUtc(path)).ToUnixTimeSeconds();

    // Names are compared with those of the folder's files, so that no name leaves the folder.
    private string PathOf(string? name)
    {
        string[] files = _folder.Files();
        IEnumerable<string> names = files.Select(Name);
        if (string.IsNullOrEmpty(name))
        {
            return files.Length == 1 ? files[0] : throw Unnamed(names);
        }

        string? loaded = Find(Loaded, name)?.Engine.Options.ModelPath;
        return Array.Find(files, file => string.Equals(Name(file), name, StringComparison.OrdinalIgnoreCase) || string.Equals(Path.GetFileName(file), name, StringComparison.OrdinalIgnoreCase))
            ?? (loaded is not null && files.Contains(loaded) ? loaded : throw Unknown(name, names));
    }

    private ModelEntry FileEntry(string path)
    {
        string name = Name(path);
        LoadFailure? failure;
        lock (_gate)
        {
            if (_models.TryGetValue(name, out FolderModel? model))
            {
                return new ModelEntry(name, Created(path), model.Served.Engine.LoadedWeights is null ? ModelEntry.IsLoading : ModelEntry.IsLoaded);
            }

            failure = _failures.GetValueOrDefault(path);
        }

        return failure is not null && failure.File == FileVersion.Of(path)
            ? new ModelEntry(name, Created(path), ModelEntry.IsFailed, failure.Reason)
            : new ModelEntry(name, Created(path), ModelEntry.Unloaded);
    }

    private void Release(FolderModel model)
    {
        lock (_gate)
        {
            model.Release();
        }
    }

    [LoggerMessage(1, LogLevel.Information, "Loading '{Path}', which needs {Memory}.")]
    private partial void LogLoading(string path, string memory);

    [LoggerMessage(2, LogLevel.Information, "Unloading {Model}.")]
    private partial void LogUnloading(string model);

    [LoggerMessage(3, LogLevel.Error, "'{Path}' cannot be read as a model: {Reason}")]
    private partial void LogNotReadable(string path, string reason);

    /// <summary>Why this version of a file could not be loaded.</summary>
    private sealed record LoadFailure(FileVersion File, string Reason);

    /// <summary>A model in memory; guarded by the catalog's lock.</summary>
    private sealed class FolderModel(string name, FileVersion file, ServedModel served, long needed)
    {
        public string Name => name;

        public ServedModel Served => served;

        /// <summary>Estimated bytes.</summary>
        public long Needed => needed;

        public int Leases { get; private set; }

        /// <summary>Whether the file has changed since the load and no request uses the model. As long as one does, new requests get the loaded model too.</summary>
        public bool IsReplaced(FileVersion current) => Leases == 0 && file != current;

        /// <summary>Timestamp of the last use.</summary>
        public long Used { get; private set; } = Stopwatch.GetTimestamp();

        public void Take()
        {
            Leases++;
            Used = Stopwatch.GetTimestamp();
        }

        public void Release()
        {
            Leases--;
            Used = Stopwatch.GetTimestamp();
        }
    }
}
