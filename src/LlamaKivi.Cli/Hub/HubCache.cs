namespace LlamaKivi.Cli.Hub;

/// <summary>
/// A repository's folder in the cache, in the layout that the hub's clients share: blobs/ has files by checksum, snapshots/COMMIT/ links to them
/// by name, and refs/main has the last known commit.
/// </summary>
internal sealed class HubCache(string cacheFolder, HubReference reference)
{
    private const string Branch = "main";

    private readonly string _folder = Path.Combine(cacheFolder, $"models--{reference.Owner}--{reference.Name}");

    /// <summary>The commit of the last download; null: none.</summary>
    public string? Commit
    {
        get
        {
            string path = Path.Combine(_folder, "refs", Branch);
            return File.Exists(path) && File.ReadAllText(path).Trim() is var commit && IsHex(commit, 40) ? commit : null;
        }
    }

    /// <summary>Names of a commit's files.</summary>
    public IReadOnlyList<string> Files(string commit)
    {
        string folder = Path.Combine(_folder, "snapshots", commit);
        return Directory.Exists(folder)
            ? [.. Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Where(Exists).Select(path => Path.GetRelativePath(folder, path).Replace('\\', '/'))]
            : [];
    }

    public string SnapshotPath(string commit, string file) => Path.Combine(_folder, "snapshots", commit, Path.Combine(file.Split('/')));

    /// <summary>Where a file is downloaded to; a broken download is continued from there.</summary>
    public string BlobPath(string blob) => Path.Combine(Directory.CreateDirectory(Path.Combine(_folder, "blobs")).FullName, blob);

    /// <summary>Adds a downloaded blob to a commit's files, and makes the commit the last one.</summary>
    public string Add(string commit, string file, string blob)
    {
        string path = SnapshotPath(commit, file);
        string folder = Directory.CreateDirectory(Path.GetDirectoryName(path)!).FullName;
        string target = BlobPath(blob);
        File.Delete(path);
        try
        {
            File.CreateSymbolicLink(path, Path.GetRelativePath(folder, target));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException && OperatingSystem.IsWindows())
        {
            // Windows grants links to administrators and in developer mode. The hub's other clients move the file too.
            File.Move(target, path);
        }

        string branch = Path.Combine(Directory.CreateDirectory(Path.Combine(_folder, "refs")).FullName, Branch);
        File.WriteAllText(branch, commit);
        return path;
    }

    /// <summary>Whether a file exists and, if it is a link, its target too: <see cref="File.Exists"/> is true for a link to a deleted blob.</summary>
    public static bool Exists(string path) => File.Exists(path) && (File.ResolveLinkTarget(path, returnFinalTarget: true)?.Exists ?? true);

    public static bool IsHex(string text, int length) => text.Length == length && text.All(char.IsAsciiHexDigit);
}
