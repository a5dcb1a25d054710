using System.Globalization;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using System.Security.Cryptography;
using System.Text;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>Files of the prefix cache's disk tier: one per prefix, readable by their owner alone.</summary>
/// <remarks>
/// Format, little-endian: "LKPREFIX", version [int32], identity [32 bytes], key [64 bytes, hexadecimal, zeros for none], number of tokens [int32], tokens [int32 each], length of the state
/// [int64], state, SHA-256 of all before it. A file appears by renaming, so it is whole or absent. Files of other models or settings stay; damaged ones are deleted.
/// </remarks>
internal sealed partial class PrefixFiles
{
    private const string Magic = "LKPREFIX";
    private const int Version = 1;
    private const int HashSize = 32;
    private const int KeySize = 64;
    private const int HeaderSize = 8 + 4 + HashSize + KeySize + 4;
    private const string Extension = ".prefix";
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const UnixFileMode OthersWrite = UnixFileMode.GroupWrite | UnixFileMode.OtherWrite;

    private readonly string _folder;
    private readonly byte[] _identity;
    private readonly ILogger _logger;

    /// <summary>Opens a folder, which is created if it is missing.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="identity">Hash of what makes states interchangeable, [32 bytes].</param>
    /// <param name="logger">Receives a line for each damaged file.</param>
    public PrefixFiles(string folder, byte[] identity, ILogger logger)
    {
        (_folder, _identity, _logger) = (Path.GetFullPath(folder), identity, logger);
        if (OperatingSystem.IsWindows())
        {
            Directory.CreateDirectory(_folder);
        }
        else
        {
            Directory.CreateDirectory(_folder, OwnerOnly | UnixFileMode.UserExecute);
        }
    }

    /// <summary>Hash of the model file (length, time and samples of its content), the cache's settings, the program's version and the processor's kernels.</summary>
    public static byte[] Identity(LLamaWeights weights, InferenceEngineOptions options)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var file = new FileInfo(options.ModelPath);
        string version = typeof(LLamaWeights).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";
        hash.AppendData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture,
            $"{Version}|{version}|{file.Length}|{file.LastWriteTimeUtc.Ticks}|{options.KvCache}|{options.TypeK}|{options.TypeV}|{weights.GpuLayerCount}|{RuntimeInformation.ProcessArchitecture}|{Avx2.IsSupported}|{Avx512F.IsSupported}")));
        const int Samples = 64;
        byte[] sample = new byte[4096];
        using FileStream stream = file.Open(new FileStreamOptions { Access = FileAccess.Read, Share = FileShare.ReadWrite });
        for (int i = 0; i < Samples; i++)
        {
            stream.Position = Math.Max(0, file.Length - sample.Length) / (Samples - 1) * i;
            hash.AppendData(sample, 0, stream.ReadAtLeast(sample, sample.Length, throwOnEndOfStream: false));
        }

        return hash.GetHashAndReset();
    }

    /// <summary>The files of this model and these settings, least recently written first. Their states are checked when they are read.</summary>
    public IReadOnlyList<PrefixFile> ReadAll()
    {
        var files = new List<PrefixFile>();
        foreach (FileInfo info in new DirectoryInfo(_folder).EnumerateFiles().OrderBy(info => info.LastWriteTimeUtc))
        {
            if (info.Extension == ".part" && info.LastWriteTimeUtc < DateTime.UtcNow.AddMinutes(-10))
            {
                Delete(info.FullName);  // of a process that ended while it wrote
            }
            else if (info.Extension == Extension && ReadHeader(info) is { } file)
            {
                files.Add(file);
            }
        }

        return files;
    }

    /// <summary>Reads the state of a file.</summary>
    /// <exception cref="StateLoadException">The file is damaged.</exception>
    public static byte[] ReadState(PrefixFile file)
    {
        byte[] content = File.ReadAllBytes(file.Path);
        int start = HeaderSize + (sizeof(int) * file.Tokens.Length) + sizeof(long);
        if (content.Length < start + HashSize || !SHA256.HashData(content.AsSpan(..^HashSize)).AsSpan().SequenceEqual(content.AsSpan(^HashSize..)))
        {
            throw new StateLoadException($"'{file.Path}' is damaged: its checksum differs. It is deleted.");
        }

        File.SetLastWriteTimeUtc(file.Path, DateTime.UtcNow);
        return content[start..^HashSize];
    }

    /// <summary>Writes a prefix.</summary>
    public PrefixFile Write(int[] tokens, string key, ReadOnlySpan<byte> state)
    {
        using var content = new MemoryStream(HeaderSize + (sizeof(int) * tokens.Length) + sizeof(long) + state.Length + HashSize);
        using (var writer = new BinaryWriter(content, Encoding.ASCII, leaveOpen: true))
        {
            writer.Write(Encoding.ASCII.GetBytes(Magic));
            writer.Write(Version);
            writer.Write(_identity);
            writer.Write(Encoding.ASCII.GetBytes(key.PadRight(KeySize, '\0')));
            writer.Write(tokens.Length);
            writer.Write(MemoryMarshal.AsBytes(tokens.AsSpan()));
            writer.Write((long)state.Length);
            writer.Write(state);
        }

        ReadOnlySpan<byte> written = content.GetBuffer().AsSpan(0, (int)content.Length);
        byte[] checksum = SHA256.HashData(written);
        string name = Convert.ToHexStringLower(SHA256.HashData(written[..(HeaderSize + (sizeof(int) * tokens.Length))]))[..40];
        string path = Path.Combine(_folder, name + Extension);
        string part = Path.Combine(_folder, Path.GetRandomFileName() + ".part");
        try
        {
            var create = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
            {
                create.UnixCreateMode = OwnerOnly;
            }

            using (var stream = new FileStream(part, create))
            {
                stream.Write(written);
                stream.Write(checksum);
            }

            File.Move(part, path, overwrite: true);
        }
        catch
        {
            File.Delete(part);
            throw;
        }

        return new PrefixFile(path, key, tokens, written.Length + HashSize);
    }

    public static void Delete(PrefixFile file) => Delete(file.Path);

    private static void Delete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It is refused again at the next start.
        }
    }

    private PrefixFile? ReadHeader(FileInfo info)
    {
        try
        {
            string? fault = Read(info, out PrefixFile? file);
            if (fault is null)
            {
                return file;
            }

            LogDeleted(info.FullName, fault);
            Delete(info.FullName);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            LogDeleted(info.FullName, e.Message);
        }

        return null;
    }

    // Returns what is wrong; without a fault, the file is null if it belongs to another model or other settings.
    private string? Read(FileInfo info, out PrefixFile? file)
    {
        file = null;
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

        if (!header.AsSpan(12, HashSize).SequenceEqual(_identity))
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

        string key = Encoding.ASCII.GetString(header, 12 + HashSize, KeySize).TrimEnd('\0');
        file = new PrefixFile(info.FullName, key, tokens, info.Length);
        return null;
    }

    [LoggerMessage(13, LogLevel.Warning, "'{Path}' is refused: {Fault}.")]
    private partial void LogDeleted(string path, string fault);
}

/// <summary>A file of a prefix.</summary>
/// <param name="Path">Its path.</param>
/// <param name="Key">Key of the requests that may share it.</param>
/// <param name="Tokens">Tokens of the prefix.</param>
/// <param name="Size">Size in bytes.</param>
internal sealed record PrefixFile(string Path, string Key, int[] Tokens, long Size);
