using System.Diagnostics;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Hosting;
using LlamaKivi.Native;
using Microsoft.AspNetCore.Http;

namespace LlamaKivi.Server;

// Loads and unloads, one at a time.
internal sealed partial class FolderModels
{
    // The model has a lease for the request, unless that has gone.
    private async Task<FolderModel> LoadAsync(string path, LoadWait wait)
    {
        try
        {
            await _turn.WaitAsync(_draining.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            throw ApiException.Draining();
        }

        try
        {
            FileVersion file = FileVersion.Of(path);  // before the load, so that a change during it counts
            while (true)
            {
                FolderModel? model;
                lock (_gate)
                {
                    if (_models.TryGetValue(Name(path), out model) && !model.IsReplaced(file))
                    {
                        return Take(model, wait);
                    }
                }

                if (model is null)
                {
                    break;
                }

                await UnloadAsync(model).ConfigureAwait(false);
            }

            InferenceEngineOptions options = _options.Engine with { ModelPath = path };
            long needed = Needed(path, file, options);
            await MakeRoomAsync(Name(path), options, needed).ConfigureAwait(false);
            return await StartAsync(path, file, options, needed, wait).ConfigureAwait(false);
        }
        finally
        {
            _turn.Release();
        }
    }

    private async Task<FolderModel> StartAsync(string path, FileVersion file, InferenceEngineOptions options, long needed, LoadWait wait)
    {
        LogLoading(path, MiB(needed));
        var engine = _create(options, Name(path));
        var model = new FolderModel(Name(path), file, new ServedModel(engine, Server, [Name(path)]), needed);
        lock (_gate)
        {
            if (_stopped)
            {
                engine.Dispose();
                throw ApiException.Draining();
            }

            _models.Add(model.Name, Take(model, wait));
        }

        await engine.StartAsync(CancellationToken.None).ConfigureAwait(false);
        try
        {
            await engine.WaitUntilReadyAsync(CancellationToken.None).ConfigureAwait(false);
            lock (_gate)
            {
                _failures.Remove(path);
            }
        }
        catch (Exception)
        {
            // The engine has logged the reason. The next request tries again.
            if (engine.Failure is { } failure)
            {
                RecordFailure(path, file, failure);
            }

            lock (_gate)
            {
                _models.Remove(model.Name);
            }

            engine.Dispose();
        }

        return model;
    }

    private long Needed(string path, FileVersion version, InferenceEngineOptions options)
    {
        try
        {
            using GgufFile file = GgufFile.Open(path);
            return MemoryFit.Needed(file, options);
        }
        catch (Exception e) when (InferenceEngine.IsLoadError(e))
        {
            LogNotReadable(path, ErrorText.Of(e));
            RecordFailure(path, version, e);
            throw ApiException.LoadFailed(path, e);
        }
    }

    private void RecordFailure(string path, FileVersion file, Exception error)
    {
        string[] files = _folder.Files();
        lock (_gate)
        {
            foreach (string gone in _failures.Keys.Except(files, StringComparer.Ordinal).ToArray())
            {
                _failures.Remove(gone);
            }

            _failures[path] = new LoadFailure(file, ApiException.LoadReason(path, error));
        }
    }

    // Idle models leave, least recently used first.
    private async Task MakeRoomAsync(string name, InferenceEngineOptions options, long needed)
    {
        while (true)
        {
            (int count, long used) = Usage();
            long free = _options.MemoryBytes is { } most ? most - used : MemoryFit.Available(options);
            if (count < _options.MaxLoaded && needed <= free)
            {
                return;
            }

            if (Oldest(TimeSpan.Zero) is { } idle)
            {
                await UnloadAsync(idle).ConfigureAwait(false);
                continue;
            }

            string reason = count < _options.MaxLoaded ? $"needs {MiB(needed)} and {MiB(free)} are free" : $"would be one more than the {_options.MaxLoaded} that the server's --models-max allows";
            throw count > 0
                ? new ApiException(StatusCodes.Status503ServiceUnavailable, $"The model '{name}' {reason}, and all loaded models run requests. Retry later.", "model", "out_of_memory", TimeSpan.FromSeconds(5))
                : new ApiException(StatusCodes.Status503ServiceUnavailable, $"The model '{name}' {reason}. Use a smaller model, or lower the context size of the server.", "model", "out_of_memory");
        }
    }

    private (int Count, long Bytes) Usage()
    {
        lock (_gate)
        {
            return (_models.Count, _models.Values.Sum(model => model.Needed));
        }
    }

    // The least recently used model without a lease, unused for a time at least.
    private FolderModel? Oldest(TimeSpan time)
    {
        lock (_gate)
        {
            return _models.Values.Where(model => model.Leases == 0 && Stopwatch.GetElapsedTime(model.Used) >= time).MinBy(model => model.Used);
        }
    }

    // A model that was taken in between stays.
    private async Task UnloadAsync(FolderModel model)
    {
        lock (_gate)
        {
            if (model.Leases > 0)
            {
                return;
            }

            _models.Remove(model.Name);
        }

        LogUnloading(model.Name);
        await StopAsync(model).ConfigureAwait(false);
    }

    private static async Task StopAsync(FolderModel model)
    {
        await model.Served.Engine.StopAsync(CancellationToken.None).ConfigureAwait(false);
        model.Served.Engine.Dispose();
    }

    // The request of a load has gone; its lease ends now, or with the load.
    private void Leave(LoadWait wait)
    {
        lock (_gate)
        {
            wait.IsOver = true;
            wait.Model?.Release();
        }
    }

    // The gate is held.
    private static FolderModel Take(FolderModel model, LoadWait wait)
    {
        if (!wait.IsOver)
        {
            model.Take();
            wait.Model = model;
        }

        return model;
    }

    private static string MiB(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1 << 20):N0} MiB");

    /// <summary>A request that waits for a load; guarded by the catalog's lock.</summary>
    private sealed class LoadWait
    {
        /// <summary>The model on which the request has a lease; null: none yet.</summary>
        public FolderModel? Model { get; set; }

        public bool IsOver { get; set; }
    }
}
