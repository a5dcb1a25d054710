using System.Net;
using System.Security.Cryptography;

namespace LlamaKivi.Cli.Hub;

/// <summary>Gets a model of the hub: from the cache, or by a download that continues where an earlier one broke and is checked by its checksum.</summary>
internal sealed class HubDownload(HubSettings settings)
{
    private const int MostFailures = 5;  // in a row, without a byte between

    /// <summary>First wait after a failure; it doubles with each.</summary>
    public TimeSpan FirstWait { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>A transfer without a byte for so long counts as broken.</summary>
    public TimeSpan Silence { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Path of the model's file.</summary>
    /// <param name="reference">Repository and weight type.</param>
    /// <param name="message">Told what happens, a line at a time.</param>
    /// <param name="progress">Told the fraction of a download, 0 to 1.</param>
    /// <param name="cancellationToken">Stops the download; its file stays and is continued the next time.</param>
    /// <exception cref="HubException">The model cannot be had; the message says why.</exception>
    public async Task<string> GetAsync(HubReference reference, Action<string> message, IProgress<float> progress, CancellationToken cancellationToken)
    {
        var cache = new HubCache(settings.CacheFolder, reference);
        if (settings.IsOffline)
        {
            return Cached(cache, reference) ?? throw new HubException(
                $"{reference.Repository}{(reference.Quant is null ? "" : ":" + reference.Quant)} is not in {settings.CacheFolder}, and HF_HUB_OFFLINE forbids a download; unset it, or name another cache folder with HF_HUB_CACHE");
        }

        using var client = new HubClient(settings);
        string commit;
        IReadOnlyList<HubFile> files;
        try
        {
            (commit, files) = await client.ListAsync(reference, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is HttpRequestException or IOException || (e is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            string reason = $"{settings.Endpoint} was not reached ({e.GetBaseException().Message})";
            string path = Cached(cache, reference) ?? throw new HubException($"{reason}, and {reference.Repository} is not in {settings.CacheFolder}; check the connection and HTTPS_PROXY", e);
            message($"{reason}; using the cached {path}");
            return path;
        }

        string chosen = HubFile.Choose(reference, [.. files.Select(file => file.Path)]);
        HubFile wanted = files.First(file => file.Path == chosen);
        string snapshot = cache.SnapshotPath(commit, chosen);
        if (HubCache.Exists(snapshot))
        {
            return snapshot;
        }

        string blob = wanted.Size >= 0 && wanted.Sha256 is { } checksum
            ? checksum
            : throw new HubException($"{settings.Endpoint} gave no size or no checksum of {chosen} in {reference.Repository}, so that a download could not be checked; download the file yourself and name it with -m");
        if (!File.Exists(cache.BlobPath(blob)))
        {
            message($"downloading {chosen} of {reference.Repository} ({wanted.Size / 1e6:F1} MB) to {settings.CacheFolder}");
            await DownloadAsync(client, reference, commit, wanted, cache.BlobPath(blob), progress, cancellationToken).ConfigureAwait(false);
        }

        return cache.Add(commit, chosen, blob);
    }

    private static string? Cached(HubCache cache, HubReference reference) =>
        cache.Commit is { } commit && cache.Files(commit) is { Count: > 0 } files ? cache.SnapshotPath(commit, HubFile.Choose(reference, files)) : null;

    private async Task DownloadAsync(HubClient client, HubReference reference, string commit, HubFile file, string target, IProgress<float> progress, CancellationToken cancellationToken)
    {
        string partial = target + ".incomplete";
        FileStream output;
        try
        {
            output = new FileStream(partial, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 0, useAsync: true);
        }
        catch (IOException e)
        {
            throw new HubException($"{partial} cannot be written ({e.Message}); another program may be downloading it", e);
        }

        string sum;
        await using (output.ConfigureAwait(false))
        {
            await FillAsync(client, reference, commit, file, output, progress, cancellationToken).ConfigureAwait(false);
            output.Position = 0;
            sum = Convert.ToHexStringLower(await SHA256.HashDataAsync(output, cancellationToken).ConfigureAwait(false));
        }

        if (sum != file.Sha256)
        {
            File.Delete(partial);
            throw new HubException($"the download of {file.Path} is damaged: its SHA-256 is {sum}, the hub's is {file.Sha256}. It was deleted; try again");
        }

        File.Move(partial, target, overwrite: true);
    }

    // Continues at the file's end until it is complete.
    private async Task FillAsync(HubClient client, HubReference reference, string commit, HubFile file, FileStream output, IProgress<float> progress, CancellationToken cancellationToken)
    {
        if (output.Length > file.Size)
        {
            output.SetLength(0);
        }

        for (int failures = 0; output.Length < file.Size;)
        {
            long before = output.Length;
            Exception? failure = null;
            try
            {
                using HttpResponseMessage response = await client.OpenAsync(reference, commit, file.Path, before, cancellationToken).ConfigureAwait(false);
                await AppendAsync(response, file, output, progress, cancellationToken).ConfigureAwait(false);
            }
            catch (HttpRequestException e) when (e.StatusCode is >= HttpStatusCode.BadRequest and < HttpStatusCode.InternalServerError and not (HttpStatusCode.RequestTimeout or HttpStatusCode.TooManyRequests))
            {
                throw new HubException($"{file.Path} of {reference.Repository} cannot be downloaded: {e.Message}", e);
            }
            catch (Exception e) when (e is HttpRequestException or IOException || (e is OperationCanceledException && !cancellationToken.IsCancellationRequested))
            {
                failure = e;
            }

            failures = output.Length > before ? 0 : failures + 1;
            if (failures == MostFailures)
            {
                throw new HubException($"the download of {file.Path} broke at {output.Length} of {file.Size} bytes, {MostFailures} times in a row ({failure?.GetBaseException().Message ?? "no bytes came"}); the same command continues it", failure);
            }

            if (output.Length < file.Size)
            {
                await Task.Delay(FirstWait * (1 << failures), cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task AppendAsync(HttpResponseMessage response, HubFile file, FileStream output, IProgress<float> progress, CancellationToken cancellationToken)
    {
        // A server without ranges sends the whole file.
        output.SetLength(response.StatusCode == HttpStatusCode.PartialContent ? response.Content.Headers.ContentRange?.From ?? output.Length : 0);
        output.Position = output.Length;
        using var silence = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Stream input = await response.Content.ReadAsStreamAsync(cancellationToken).ConfigureAwait(false);
        await using (input.ConfigureAwait(false))
        {
            byte[] buffer = new byte[1 << 16];
            while (output.Position < file.Size)
            {
                silence.CancelAfter(Silence);
                int n = await input.ReadAsync(buffer.AsMemory(0, (int)Math.Min(buffer.Length, file.Size - output.Position)), silence.Token).ConfigureAwait(false);
                if (n == 0)
                {
                    return;
                }

                await output.WriteAsync(buffer.AsMemory(0, n), cancellationToken).ConfigureAwait(false);
                progress.Report((float)output.Position / file.Size);
            }
        }
    }
}
