namespace LlamaKivi.Server;

/// <summary>The GGUF files of a folder. Lists the folder only when it has changed.</summary>
/// <param name="path">Path of the folder, which need not exist yet.</param>
internal sealed class ModelFolder(string path)
{
    // Resolution of the folder's time: a change this soon after another may not alter it, so a recent listing is not kept.
    private static readonly TimeSpan Resolution = TimeSpan.FromSeconds(2);

    private volatile Listing _listing = new(default, []);

    /// <summary>Whether the folder exists.</summary>
    public bool Exists => Directory.Exists(path);

    /// <summary>Paths of the files, ascending. Thread-safe.</summary>
    public string[] Files()
    {
        if (!Exists)
        {
            return [];
        }

        DateTime now = DateTime.UtcNow;
        DateTime changed = Directory.GetLastWriteTimeUtc(path);
        Listing listing = _listing;
        if (listing.Changed == changed)
        {
            return listing.Files;
        }

        string[] files = [.. Directory.EnumerateFiles(path, "*.gguf").Order(StringComparer.Ordinal)];
        if (now - changed > Resolution)
        {
            _listing = new Listing(changed, files);
        }

        return files;
    }

    private sealed record Listing(DateTime Changed, string[] Files);
}
