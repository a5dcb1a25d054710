namespace LlamaKivi;

/// <summary>Writes files that appear whole or not at all.</summary>
public static class WholeFile
{
    private const UnixFileMode AnyWrite = UnixFileMode.UserWrite | UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    /// <summary>
    /// Writes a file beside the path and puts it in its place at the end; on any failure what was there stays. A symbolic link
    /// is followed: it stays, and the file it leads to is written. A file that is there keeps its permissions.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="write">Writes the content.</param>
    /// <exception cref="IOException">The file cannot be written, or the path is a device.</exception>
    /// <exception cref="UnauthorizedAccessException">The file is there and is read-only, or its folder is.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        string target = new FileInfo(path) is { LinkTarget: not null } link ? link.ResolveLinkTarget(returnFinalTarget: true)!.FullName : Path.GetFullPath(path);
        string folder = Path.GetDirectoryName(target) ?? target;
        CheckPlace(path, target, folder);
        // Short: the longest name that a file can have is possible.
        string part = Path.Combine(folder, $".{Path.GetRandomFileName()}.part");
        bool written = false;
        try
        {
            using (FileStream stream = File.Create(part))
            {
                if (!OperatingSystem.IsWindows() && File.Exists(target))
                {
                    File.SetUnixFileMode(stream.SafeFileHandle, File.GetUnixFileMode(target));
                }

                write(stream);
            }

            File.Move(part, target, overwrite: true);
            written = true;
        }
        catch (UnauthorizedAccessException e)
        {
            throw new UnauthorizedAccessException(Message(e), e);
        }
        catch (IOException e)
        {
            throw new IOException(Message(e), e);
        }
        finally
        {
            if (!written)
            {
                File.Delete(part);
            }
        }

        // The temporary name says nothing to whoever asked for the file.
        string Message(Exception e) => $"cannot write '{path}': {e.Message.Replace(part, target, StringComparison.Ordinal)}";
    }

    // A rename needs no permission of the file it replaces, and would put a file in the place of a device.
    private static void CheckPlace(string path, string target, string folder)
    {
        if (!Directory.Exists(folder))
        {
            throw new DirectoryNotFoundException($"cannot write '{path}': Could not find the folder '{folder}'");
        }

        if (Directory.Exists(target))
        {
            throw new IOException($"cannot write '{path}': it is a folder; name a file");
        }

        if (target.StartsWith("/dev/", StringComparison.Ordinal) && !target.StartsWith("/dev/shm/", StringComparison.Ordinal))
        {
            throw new IOException($"cannot write '{path}': it is a device, which the finished file would replace; name a file");
        }

        if (!File.Exists(target))
        {
            return;
        }

        // The superuser may write to any file.
        bool readOnly = OperatingSystem.IsWindows() ? new FileInfo(target).IsReadOnly : (File.GetUnixFileMode(target) & AnyWrite) == UnixFileMode.None;
        try
        {
            if (!readOnly)
            {
                // For reading too: opening a pipe for writing alone waits for a reader.
                using FileStream open = new(target, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
                if (!open.CanSeek)
                {
                    throw new IOException($"cannot write '{path}': it is a pipe or a device, which the finished file would replace; name a file");
                }
            }
        }
        catch (UnauthorizedAccessException)
        {
            readOnly = true;
        }

        if (readOnly)
        {
            throw new UnauthorizedAccessException($"cannot write '{path}': the file is there and is read-only; make it writable, remove it or name another");
        }
    }
}
