namespace LlamaKivi.Native.Tests;

/// <summary>Files the tests use.</summary>
internal static class TestFiles
{
    public static string Model => Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");

    /// <summary>The repository's root, found from the output folder; null if the tests run somewhere else.</summary>
    public static string? RepositoryRoot
    {
        get
        {
            string? folder = AppContext.BaseDirectory;
            while (folder is not null && !File.Exists(Path.Combine(folder, "LlamaKivi.slnx")))
            {
                folder = Path.GetDirectoryName(folder);
            }

            return folder;
        }
    }
}

/// <summary>A folder that goes away with the test.</summary>
internal sealed class TemporaryFolder : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("llama-kivi-test-").FullName;

    public string Write(string name, ReadOnlySpan<byte> bytes)
    {
        string path = System.IO.Path.Combine(Path, name);
        File.WriteAllBytes(path, bytes);
        return path;
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
