using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

// Settings for the choice of a library, and the policy that reads them.
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

    /// <summary>Sets the policy that selects a library in <see cref="DryRun"/>. There is only one library: <see cref="DryRun"/> fails if the policy selects other files.</summary>
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

    /// <summary>Settings for the choice of a library: the arguments of the methods of <see cref="NativeLibraryConfig"/>.</summary>
    /// <param name="Path">Of <see cref="WithLibrary"/>.</param>
    /// <param name="Library">The library.</param>
    /// <param name="UseCuda">Of <see cref="WithCuda"/>.</param>
    /// <param name="UseVulkan">Of <see cref="WithVulkan"/>.</param>
    /// <param name="AvxLevel">Of <see cref="WithAvx"/>; by default the processor's.</param>
    /// <param name="AllowFallback">Of <see cref="WithAutoFallback"/>.</param>
    /// <param name="SkipCheck">Of <see cref="NativeLibraryConfig.SkipCheck"/>.</param>
    /// <param name="SearchDirectories">Of <see cref="WithSearchDirectory"/> and <see cref="WithSearchDirectories"/>.</param>
    public record Description(
        string? Path, NativeLibraryName Library, bool UseCuda, bool UseVulkan, AvxLevel AvxLevel, bool AllowFallback, bool SkipCheck, string[]? SearchDirectories);
}
