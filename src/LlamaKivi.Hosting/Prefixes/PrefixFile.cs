using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting;

/// <summary>A file with the state of a sequence: an entry of the prefix cache's disk tier, or a saved slot.</summary>
/// <remarks>
/// Format, little-endian: "LKPREFIX", version [int32], identity [32 bytes], key [64 bytes, hexadecimal, zeros for none], smallest length of an exact truncation [int32], number of tokens [int32],
/// tokens [int32 each], length of the state [int64], state, SHA-256 of all before it. A file is written under another name and then renamed, so it is whole or absent. Only its owner can read it.
/// </remarks>
/// <param name="Path">Its path.</param>
/// <param name="Key">Key of the requests that may share it.</param>
/// <param name="Tokens">Tokens of the sequence.</param>
/// <param name="ExactFrom">Smallest length to which the sequence can be truncated exactly.</param>
/// <param name="Size">Size in bytes.</param>
internal sealed record PrefixFile(string Path, string Key, int[] Tokens, int ExactFrom, long Size)
{
    /// <summary>Version of the format.</summary>
    public const int Version = 2;

    /// <summary>Extension of a file that is being written.</summary>
    public const string PartExtension = ".part";

    private const string Magic = "LKPREFIX";
    private const int HashSize = 32;
    private const int KeySize = 64;
    private const int HeaderSize = 8 + 4 + HashSize + KeySize + 4 + 4;
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const UnixFileMode OthersWrite = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    /// <summary>Reads the state.</summary>
    /// <exception cref="StateLoadException">The file is damaged.</exception>
    public byte[] ReadState()
    {
        byte[] content = File.ReadAllBytes(Path);
        int start = HeaderSize + (sizeof(int) * Tokens.Length) + sizeof(long);
        return content.Length >= start + HashSize && SHA256.HashData(content.AsSpan(..^HashSize)).AsSpan().SequenceEqual(content.AsSpan(^HashSize..))
            ? content[start..^HashSize]
            : throw new StateLoadException($"'{Path}' is damaged: its checksum differs.");
    }

    /// <summary>Reads a file's tokens and key. The state is checked when it is read.</summary>
    /// <param name="info">The file.</param>
    /// <param name="identity">Hash of what makes states interchangeable, [32 bytes].</param>
    /// <param name="file">The file; null: it is refused, or without a fault, it belongs to another model or other settings.</param>
    /// <returns>What is wrong; null: nothing.</returns>
    public static string? ReadHeader(FileInfo info, ReadOnlySpan<byte> identity, out PrefixFile? file)
    {
        file = null;
        if (info.LinkTarget is not null)
        {
            return "it is a link";
        }

        if (!OperatingSystem.IsWindows() && (info.UnixFileMode & OthersWrite) != UnixFileMode.None)
        {
            return "other users may write it";
        }

        using FileStream stream = info.OpenRead();
        byte[] header = new byte[HeaderSize];
        if (stream.ReadAtLeast(header, HeaderSize, throwOnEndOfStream: false) < HeaderSize || !header.AsSpan(0, 8).SequenceEqual(Encoding.ASCII.GetBytes(Magic)))
        {
            return "it is no prefix";
        }

        if (BitConverter.ToInt32(header, 8) != Version)
        {
            return $"its format is {BitConverter.ToInt32(header, 8)}; this version reads {Version}";
        }

        if (!header.AsSpan(12, HashSize).SequenceEqual(identity))
        {
            return null;
        }

        int count = BitConverter.ToInt32(header, HeaderSize - sizeof(int));
        long left = info.Length - HeaderSize - sizeof(long) - HashSize;
        if (count <= 0 || count > left / sizeof(int))
        {
            return $"it has {info.Length} bytes, too few for {count} tokens";
        }

        int[] tokens = new int[count];
        stream.ReadExactly(MemoryMarshal.AsBytes(tokens.AsSpan()));
        byte[] length = new byte[sizeof(long)];
        stream.ReadExactly(length);
        if (BitConverter.ToInt64(length) != left - (sizeof(int) * (long)count))
        {
            return $"it has {info.Length} bytes, but its state should have {BitConverter.ToInt64(length)}";
        }

        int exactFrom = BitConverter.ToInt32(header, HeaderSize - (2 * sizeof(int)));
        if (exactFrom < 0 || exactFrom > count)
        {
            return $"it claims exact truncation from {exactFrom} tokens on, but has {count}";
        }

        string key = Encoding.ASCII.GetString(header, 12 + HashSize, KeySize).TrimEnd('\0');
        file = new PrefixFile(info.FullName, key, tokens, exactFrom, info.Length);
        return null;
    }

    /// <summary>Reads a file with its state.</summary>
    /// <param name="path">Path of the file.</param>
    /// <param name="identity">Hash of what makes states interchangeable, [32 bytes].</param>
    /// <exception cref="StateLoadException">The file is damaged, or its model or settings differ.</exception>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    public static (PrefixFile File, byte[] State) Read(string path, ReadOnlySpan<byte> identity)
    {
        var info = new FileInfo(path);
        if (!info.Exists)
        {
            throw new FileNotFoundException($"'{path}' does not exist.", path);
        }

        string? fault = ReadHeader(info, identity, out PrefixFile? file);
        return fault is not null ? throw new StateLoadException($"'{System.IO.Path.GetFileName(path)}' is refused: {fault}.")
            : file is null ? throw new StateLoadException($"'{System.IO.Path.GetFileName(path)}' was saved by another model, other settings or another version. Restore it with those, or save it anew.")
            : (file, file.ReadState());
    }

    /// <summary>Writes a file, which replaces one of its name.</summary>
    /// <param name="path">Path of the file, given its header's name: a hash of all but the state.</param>
    /// <param name="identity">Hash of what makes states interchangeable, [32 bytes].</param>
    /// <param name="tokens">Tokens of the sequence.</param>
    /// <param name="key">Key of the requests that may share it.</param>
    /// <param name="exactFrom">Smallest length to which the sequence can be truncated exactly.</param>
    /// <param name="state">State of the sequence.</param>
    public static PrefixFile Write(Func<string, string> path, ReadOnlySpan<byte> identity, int[] tokens, string key, int exactFrom, ReadOnlySpan<byte> state)
    {
        using var content = new MemoryStream(HeaderSize + (sizeof(int) * tokens.Length) + sizeof(long) + state.Length + HashSize);
        using var writer = new BinaryWriter(content, Encoding.ASCII, leaveOpen: true);
        WriteHeader(writer, identity, tokens, key, exactFrom);
        string name = Convert.ToHexStringLower(SHA256.HashData(content.GetBuffer().AsSpan(0, (int)content.Length)))[..40];
        writer.Write((long)state.Length);
        writer.Write(state);
        byte[] checksum = SHA256.HashData(content.GetBuffer().AsSpan(0, (int)content.Length));
        writer.Write(checksum);
        string target = path(name);
        WriteWhole(target, content.GetBuffer().AsSpan(0, (int)content.Length));
        return new PrefixFile(target, key, tokens, exactFrom, content.Length);
    }

    // Written under another name, then renamed, so that the file is whole or absent.
    private static void WriteWhole(string path, ReadOnlySpan<byte> content)
    {
        string part = System.IO.Path.Combine(System.IO.Path.GetDirectoryName(path)!, System.IO.Path.GetRandomFileName() + PartExtension);
        try
        {
            var create = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
            {
                create.UnixCreateMode = OwnerOnly;
            }

            using (var stream = new FileStream(part, create))
            {
                stream.Write(content);
            }

            File.Move(part, path, overwrite: true);
        }
        catch
        {
            File.Delete(part);
            throw;
        }
    }

    private static void WriteHeader(BinaryWriter writer, ReadOnlySpan<byte> identity, int[] tokens, string key, int exactFrom)
    {
        writer.Write(Encoding.ASCII.GetBytes(Magic));
        writer.Write(Version);
        writer.Write(identity);
        writer.Write(Encoding.ASCII.GetBytes(key.PadRight(KeySize, '\0')));
        writer.Write(exactFrom);
        writer.Write(tokens.Length);
        writer.Write(MemoryMarshal.AsBytes(tokens.AsSpan()));
    }
}
