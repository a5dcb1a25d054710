namespace LlamaKivi;

/// <summary>Files that appear whole or not at all.</summary>
internal static class WholeFile
{
    /// <summary>Writes a file beside the path and puts it in its place at the end; on any failure what was there stays.</summary>
    /// <exception cref="IOException">The file cannot be written, or the path is a device.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (Path.GetFullPath(path).StartsWith("/dev/", StringComparison.Ordinal))
        {
            throw new IOException($"cannot write {path}: it is a device, which the finished file would replace; name a file");
        }

        string part = $"{path}.{Path.GetRandomFileName()}.part";
        try
        {
            using (FileStream stream = File.Create(part))
            {
                write(stream);
            }

            File.Move(part, path, overwrite: true);
        }
        catch
        {
            File.Delete(part);
            throw;
        }
    }
}
