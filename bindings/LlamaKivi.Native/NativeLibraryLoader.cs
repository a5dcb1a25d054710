using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Finds the native library and checks its interface version before the first use.</summary>
internal static unsafe class NativeLibraryLoader
{
    /// <summary>Environment variable with the folder of the native library. If it is set, no other folder is tried.</summary>
    public const string DirectoryVariable = "LLAMA_KIVI_NATIVE_DIR";

    private static readonly Lock Gate = new();
    private static nint s_library;

    /// <summary>Value of the variable, or null.</summary>
    public static string? Directory => Environment.GetEnvironmentVariable(DirectoryVariable);

    public static string FileName =>
        OperatingSystem.IsWindows() ? "llama-kivi.dll" : OperatingSystem.IsMacOS() ? "libllama-kivi.dylib" : "libllama-kivi.so";

    [SuppressMessage("Usage", "CA2255", Justification = "The resolver must be in place before any call, whichever type makes it first.")]
    [ModuleInitializer]
    internal static void Register() => NativeLibrary.SetDllImportResolver(
        typeof(NativeLibraryLoader).Assembly,
        static (name, _, _) => name == NativeMethods.LibraryName ? Library() : 0);

    /// <summary>The paths to try, in order.</summary>
    public static IReadOnlyList<string> Candidates(string? nativeDirectory)
    {
        if (!string.IsNullOrEmpty(nativeDirectory))
        {
            return [Path.GetFullPath(Path.Combine(nativeDirectory, FileName))];
        }

        // The host's folders: native assets of NuGet packages, and the extraction folder of a single-file program.
        string[] hostFolders = (AppContext.GetData("NATIVE_DLL_SEARCH_DIRECTORIES") as string ?? "").Split(Path.PathSeparator);
        string[] folders = [AssemblyFolder(), AppContext.BaseDirectory, .. hostFolders];
        return [.. folders.Where(folder => folder.Length > 0)
            .SelectMany(folder => RuntimeIdentifiers().Select(rid => Path.Combine(folder, "runtimes", rid, "native")).Append(folder))
            .Select(folder => Path.GetFullPath(Path.Combine(folder, FileName)))
            .Distinct(StringComparer.Ordinal)];
    }

    /// <summary>Loads the first candidate that loads.</summary>
    /// <exception cref="NativeLibraryNotFoundException">No candidate loads.</exception>
    public static (nint Library, string Path) Load(IReadOnlyList<string> candidates)
    {
        var attempts = new List<(string Path, string Reason)>();
        foreach (string path in candidates)
        {
            if (!File.Exists(path))
            {
                attempts.Add((path, "no such file"));
                continue;
            }

            if (NativePlatform.Mismatch(path, NativePlatform.Portable) is { } mismatch)
            {
                attempts.Add((path, mismatch));
                continue;
            }

            try
            {
                return (NativeLibrary.Load(path), path);
            }
            catch (Exception e) when (e is DllNotFoundException or BadImageFormatException)
            {
                attempts.Add((path, e.Message.ReplaceLineEndings(" ").Trim()));
            }
        }

        throw new NativeLibraryNotFoundException(attempts);
    }

    /// <exception cref="AbiMismatchException">The versions differ.</exception>
    public static void CheckAbi(uint found, string path)
    {
        if (found != NativeMethods.LK_ABI_VERSION)
        {
            throw new AbiMismatchException(NativeMethods.LK_ABI_VERSION, found, path);
        }
    }

    private static nint Library()
    {
        lock (Gate)
        {
            if (s_library == 0)
            {
                var (library, path) = Load(Candidates(Directory));
                uint found = NativeLibrary.TryGetExport(library, "lk_abi_version", out nint function)
                    ? ((delegate* unmanaged[Cdecl]<uint>)function)()
                    : 0;
                CheckAbi(found, path);
                s_library = library;
            }

            return s_library;
        }
    }

    private static IEnumerable<string> RuntimeIdentifiers() =>
        new[] { RuntimeInformation.RuntimeIdentifier, NativePlatform.Portable }.Distinct(StringComparer.Ordinal);

    [UnconditionalSuppressMessage("SingleFile", "IL3000", Justification = "Empty in a single-file app, where the base directory serves.")]
    private static string AssemblyFolder() => Path.GetDirectoryName(Assembly.GetExecutingAssembly().Location) ?? "";
}
