namespace LlamaKivi.Server.Tests;

/// <summary>The list of a folder's models follows the folder without reading it each time.</summary>
public sealed class ModelListingTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void A_folder_is_read_again_when_it_has_changed()
    {
        Add("b.gguf");
        Add("a.gguf");
        Add("notes.txt");
        Directory.SetLastWriteTimeUtc(_folder, DateTime.UtcNow.AddMinutes(-1));
        var folder = new ModelFolder(_folder);
        string[] files = folder.Files();
        Assert.Equal(["a.gguf", "b.gguf"], files.Select(Path.GetFileName));
        Assert.Same(files, folder.Files());
        for (int i = 0; i < 20; i++)
        {
            Add($"c{i}.gguf");  // within the resolution of the folder's time
            Assert.Equal(3 + i, folder.Files().Length);
        }

        File.Delete(Path.Combine(_folder, "a.gguf"));
        Assert.Equal(21, folder.Files().Length);
        Directory.Delete(_folder, recursive: true);
        Assert.Equal((0, false), (folder.Files().Length, folder.Exists));
        Directory.CreateDirectory(_folder);
        Add("late.gguf");
        Assert.Single(folder.Files());
    }

    private void Add(string name) => File.WriteAllText(Path.Combine(_folder, name), "");
}
