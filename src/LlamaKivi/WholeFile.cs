namespace LlamaKivi;

/// <summary>Writes files atomically.</summary>
public static class WholeFile
{
    private const UnixFileMode AnyWrite = UnixFileMode.UserWrite | UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    /// <summary>
    /// Writes a temporary file next to the target and renames it at the end; on failure the target is unchanged. A symbolic link is followed:
    /// the link stays, its target is replaced. An existing file keeps its permissions.
    /// </summary>
    /// <param name="path">Target path.</param>
    /// <param name="write">Writes the content.</param>
    /// <exception cref="IOException">The file cannot be written, or the path is a folder, a pipe or a device.</exception>
    /// <exception cref="UnauthorizedAccessException">The file or its folder is read-only.</exception>
    public static void Write(string path, Action<Stream> write)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(write);
        string target = new FileInfo(path) is { LinkTarget: not null } link ? link.ResolveLinkTarget(returnFinalTarget: true)!.FullName : Path.GetFullPath(path);
        string folder = Path.GetDirectoryName(target) ?? target;
        CheckPlace(path, target, folder);
        // A short name, because the target's own name may already have the maximum length.
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

        // The caller knows the target path, not the temporary one.
        string Message(Exception e) => $"cannot write '{path}': {e.Message.Replace(part, target, StringComparison.Ordinal)}";
    }

    // Checks what a rename does not: it ignores the permissions of the replaced file and would replace a device.
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

        // The superuser may write to read-only files, so the mode bits are checked.
        bool readOnly = OperatingSystem.IsWindows() ? new FileInfo(target).IsReadOnly : (File.GetUnixFileMode(target) & AnyWrite) == UnixFileMode.None;
        try
        {
            if (!readOnly)
            {
                // Read access too: opening a pipe write-only would block until a reader opens it.
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
            throw new UnauthorizedAccessException($"cannot write '{path}': the file is read-only; make it writable, remove it or name another");
        }
    }
}
