using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>Reads saved states; exceptions name the file.</summary>
internal static class StateFile
{
    /// <summary>Runs an action that reads a file or a folder of files.</summary>
    public static void Read(string path, Action read)
    {
        try
        {
            read();
        }
        catch (Exception e) when (Named(path, e) is { } named)
        {
            throw named;
        }
    }

    /// <inheritdoc cref="Read"/>
    public static async Task ReadAsync(string path, Func<Task> read)
    {
        try
        {
            await read().ConfigureAwait(false);
        }
        catch (Exception e) when (Named(path, e) is { } named)
        {
            throw named;
        }
    }

    // The exception with the path; null if its message already has the path or it is not about the file.
    private static Exception? Named(string path, Exception e)
    {
        // Opening a folder as a file fails with "access denied". The path of a saved session is a folder, so the exception must name it.
        if (e is UnauthorizedAccessException && Directory.Exists(path) && e.Message.Contains($"'{Path.GetFullPath(path)}'", StringComparison.Ordinal))
        {
            return new StateLoadException($"cannot read '{path}': it is a folder; name the file of a saved state");
        }

        if (string.IsNullOrEmpty(path) || e.Message.Contains(path, StringComparison.Ordinal))
        {
            return null;
        }

        string message = $"'{path}': {e.Message}";
        return e switch
        {
            StateLoadException => new StateLoadException(message),
            KvCacheFullException full => new KvCacheFullException(message, full.Needed, full.Available),
            NativeOutOfMemoryException memory => new NativeOutOfMemoryException(message, memory.Needed),
            OutOfDeviceMemoryException memory => new OutOfDeviceMemoryException(message, memory.Needed, memory.Available),
            _ when e.GetType() == typeof(IOException) => new IOException(message, e),
            _ => null,
        };
    }
}
