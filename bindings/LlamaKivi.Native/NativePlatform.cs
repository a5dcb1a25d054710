using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>The platform of this process, the platforms that have an engine, and the platform of a library file.</summary>
internal static class NativePlatform
{
    /// <summary>Platforms that the packages of backends support.</summary>
    public static IReadOnlyList<string> Supported { get; } = ["linux-x64", "linux-arm64", "win-x64", "osx-arm64", "osx-x64"];

    /// <summary>System and processor, such as "linux-x64". The runtime's own identifier may name a distribution ("debian.12-x64").</summary>
    public static string Portable { get; } = $"{SystemName}-{RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant()}";

    /// <summary>Platform, system and runtime, for display.</summary>
    public static string Description { get; } = $"{RuntimeInformation.RuntimeIdentifier}, {RuntimeInformation.OSDescription}, {RuntimeInformation.FrameworkDescription}";

    private static string SystemName => OperatingSystem.IsWindows() ? "win" : OperatingSystem.IsMacOS() ? "osx" : "linux";

    /// <summary>Sentence that says what to do if the library is missing.</summary>
    /// <param name="rid">The runtime's identifier.</param>
    /// <param name="portable">System and processor.</param>
    /// <param name="nativeDirectory">Value of <see cref="NativeLibraryLoader.DirectoryVariable"/>, or null.</param>
    public static string Remedy(string rid, string portable, string? nativeDirectory)
    {
        string remedy;
        if (!string.IsNullOrEmpty(nativeDirectory))
        {
            string problem = File.Exists(nativeDirectory) ? "; it names a file, not a folder" : "";
            return $"{NativeLibraryLoader.DirectoryVariable} is set to {nativeDirectory}{problem}, so no other folder is tried. Set it to the folder that holds {NativeLibraryLoader.FileName}, or unset it to use the library of a backend's package.";
        }

        // Runtimes built by Alpine name the distribution.
        if (rid.Contains("musl", StringComparison.Ordinal) || rid.StartsWith("alpine", StringComparison.Ordinal))
        {
            remedy = $"{rid} is not supported: the engine needs glibc 2.35 or later (Ubuntu 22.04, Debian 12).";
        }
        else if (!Supported.Contains(portable, StringComparer.Ordinal))
        {
            remedy = $"{portable} is not supported: there are engines for {string.Join(", ", Supported)}." +
                (portable.EndsWith("-x86", StringComparison.Ordinal) ? " Run the program as a 64-bit process." : "") +
                (portable == "win-arm64" ? " Windows on arm64 runs programs published for win-x64." : "");
        }
        else
        {
            remedy = $"Add the backend's package for {portable}: dotnet add package LlamaKivi.Backend.Cpu (with a GPU on Linux: LlamaKivi.Backend.Cuda.Linux). In the repository: dotnet build.";
        }

        return $"{remedy} A library in another folder: set {NativeLibraryLoader.DirectoryVariable} to the folder that holds {NativeLibraryLoader.FileName}.";
    }

    /// <summary>Why the file cannot be a library of a platform, or null. The system's loader reports a library of another processor as a missing file.</summary>
    public static string? Mismatch(string path, string portable)
    {
        string? built = OfLibrary(path);
        return built is null || built == portable ? null : $"it is built for {built}, and this process is {portable}";
    }

    /// <summary>Platform of a library file, or null if it is unknown.</summary>
    private static string? OfLibrary(string path)
    {
        Span<byte> header = stackalloc byte[1024];
        try
        {
            using FileStream file = File.OpenRead(path);
            header = header[..file.ReadAtLeast(header, header.Length, throwOnEndOfStream: false)];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;  // the system's loader says why
        }

        if (header.Length < 64)
        {
            return null;
        }

        if (header.StartsWith("\u007fELF"u8))
        {
            return Name("linux", BinaryPrimitives.ReadUInt16LittleEndian(header[18..]), (62, "x64"), (183, "arm64"), (3, "x86"), (40, "arm"));
        }

        if (header.StartsWith("MZ"u8))
        {
            int start = BinaryPrimitives.ReadInt32LittleEndian(header[60..]);
            return start >= 0 && start <= header.Length - 6 && header[start..].StartsWith("PE\0\0"u8)
                ? Name("win", BinaryPrimitives.ReadUInt16LittleEndian(header[(start + 4)..]), (0x8664, "x64"), (0xAA64, "arm64"), (0x14C, "x86"))
                : null;
        }

        return BinaryPrimitives.ReadUInt32LittleEndian(header) == 0xFEEDFACF
            ? Name("osx", BinaryPrimitives.ReadInt32LittleEndian(header[4..]), (0x1000007, "x64"), (0x100000C, "arm64"))
            : null;
    }

    private static string? Name(string system, int machine, params ReadOnlySpan<(int Machine, string Name)> machines)
    {
        foreach ((int number, string name) in machines)
        {
            if (number == machine)
            {
                return $"{system}-{name}";
            }
        }

        return null;
    }
}
