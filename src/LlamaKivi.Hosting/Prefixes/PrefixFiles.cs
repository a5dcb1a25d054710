using System.Globalization;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Hosting;

/// <summary>Folder of the prefix cache's disk tier, with one file per prefix. Files of other models or settings stay; damaged ones are deleted.</summary>
internal sealed partial class PrefixFiles
{
    private const string Extension = ".prefix";
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

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
            Directory.CreateDirectory(_folder, OwnerOnly);
        }
    }

    /// <summary>Hash of the model file (length, time and samples of its content), what overrides its metadata, the cache's settings, the program's version and the processor's kernels.</summary>
    public static byte[] Identity(LLamaWeights weights, InferenceEngineOptions options)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var file = new FileInfo(options.ModelPath);
        string version = typeof(LLamaWeights).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";
        string overrides = string.Join('|', options.MetadataOverrides.Select(item => string.Create(CultureInfo.InvariantCulture, $"{item.Key}={item.Value.GetType().Name}:{item.Value}")));
        string processor = weights.GpuLayerCount == 0 ? "" : NativeEngine.DescribeDevice().Name;
        hash.AppendData(Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture,
            $"{PrefixFile.Version}|{version}|{file.Length}|{file.LastWriteTimeUtc.Ticks}|{options.KvCache}|{options.TypeK}|{options.TypeV}|{RopeSettings.Of(options)}|{options.AttentionType}|{overrides}|{weights.GpuLayerCount}|{processor}|{RuntimeInformation.ProcessArchitecture}|{NativeEngine.CpuDescription}")));
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
            if (info.Extension == PrefixFile.PartExtension && info.LastWriteTimeUtc < DateTime.UtcNow.AddMinutes(-10))
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

    /// <summary>Reads the state of a file, which becomes the most recently used.</summary>
    /// <exception cref="StateLoadException">The file is damaged.</exception>
    public static byte[] ReadState(PrefixFile file)
    {
        byte[] state = file.ReadState();
        File.SetLastWriteTimeUtc(file.Path, DateTime.UtcNow);
        return state;
    }

    /// <summary>Writes a prefix.</summary>
    public PrefixFile Write(int[] tokens, string key, int exactFrom, ReadOnlySpan<byte> state) =>
        PrefixFile.Write(name => Path.Combine(_folder, name + Extension), _identity, tokens, key, exactFrom, state);

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
            string? fault = PrefixFile.ReadHeader(info, _identity, out PrefixFile? file);
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

    [LoggerMessage(13, LogLevel.Warning, "'{Path}' is refused: {Fault}.")]
    private partial void LogDeleted(string path, string fault);
}
