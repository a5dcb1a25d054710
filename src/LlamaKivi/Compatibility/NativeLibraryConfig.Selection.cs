using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

// The program's settings for the library, and the policy that selects by them.
public sealed partial class NativeLibraryConfig
{
    private readonly List<string> _searchDirectories = [];
    private string? _path;
    private bool _useCuda = true;
    private bool _useVulkan = true;
    private AvxLevel? _avxLevel;
    private bool _allowFallback = true;
    private bool _skipCheck;
    private INativeLibrarySelectingPolicy? _policy;
    private NativeLogConfig.LLamaLogCallback? _logCallback;

    /// <summary>Sets the policy that <see cref="DryRun"/> calls to select a library. There is only one library: <see cref="DryRun"/> fails if the policy returns other files.</summary>
    public NativeLibraryConfig WithSelectingPolicy(INativeLibrarySelectingPolicy policy)
    {
        ArgumentNullException.ThrowIfNull(policy);
        return With(() => _policy = policy);
    }

    private INativeLibrary? Select()
    {
        var engine = new EngineLibrary();
        if (_policy is null)
        {
            return engine;
        }

        var asked = new Description(_path, _name, _useCuda, _useVulkan, _avxLevel ?? engine.Metadata.AvxLevel, _allowFallback, _skipCheck, [.. _searchDirectories]);
        SystemInfo system = SystemInfo.Get();
        HashSet<string> files = [.. EngineLibrary.Files.Select(Path.GetFullPath)];
        return _policy.Apply(asked, system, _logCallback).FirstOrDefault(library => library.Prepare(system, _logCallback).Any(file => files.Contains(Path.GetFullPath(file))));
    }

    /// <summary>The program's settings: the arguments of the methods of <see cref="NativeLibraryConfig"/>.</summary>
    /// <param name="Path">Argument of <see cref="WithLibrary"/>.</param>
    /// <param name="Library">Name of the library.</param>
    /// <param name="UseCuda">Argument of <see cref="WithCuda"/>.</param>
    /// <param name="UseVulkan">Argument of <see cref="WithVulkan"/>.</param>
    /// <param name="AvxLevel">Argument of <see cref="WithAvx"/>; default: the level of the processor.</param>
    /// <param name="AllowFallback">Argument of <see cref="WithAutoFallback"/>.</param>
    /// <param name="SkipCheck">Argument of <see cref="NativeLibraryConfig.SkipCheck"/>.</param>
    /// <param name="SearchDirectories">Arguments of <see cref="WithSearchDirectory"/> and <see cref="WithSearchDirectories"/>.</param>
    public record Description(
        string? Path, NativeLibraryName Library, bool UseCuda, bool UseVulkan, AvxLevel AvxLevel, bool AllowFallback, bool SkipCheck, string[]? SearchDirectories);
}
