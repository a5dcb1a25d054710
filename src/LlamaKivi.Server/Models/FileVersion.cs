namespace LlamaKivi.Server;

/// <summary>What changes when a file is written or replaced.</summary>
/// <param name="Target">Path of the file, links resolved.</param>
/// <param name="Written">Time of the last write.</param>
/// <param name="Length">Length in bytes.</param>
internal readonly record struct FileVersion(string Target, DateTime Written, long Length)
{
    /// <summary>The version of a file; that of a file which cannot be read differs from all others.</summary>
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
