namespace LlamaKivi.Server;

/// <summary>Identifies a version of a file: it changes when the file is written or replaced.</summary>
/// <param name="Target">Path of the file, links resolved.</param>
/// <param name="Written">Time of the last write.</param>
/// <param name="Length">Length in bytes.</param>
internal readonly record struct FileVersion(string Target, DateTime Written, long Length)
{
    /// <summary>The version of a file. An unreadable file has a version that no readable file has.</summary>
    public static FileVersion Of(string path)
    {
        try
        {
            var file = (FileInfo)(File.ResolveLinkTarget(path, returnFinalTarget: true) ?? new FileInfo(path));
            return new FileVersion(file.FullName, file.LastWriteTimeUtc, file.Length);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return new FileVersion(path, default, -1);
        }
    }
}
