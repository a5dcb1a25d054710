namespace LlamaKivi.Cli.Tests;

public sealed class DemoModelTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-demo-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void The_model_beside_the_program_comes_before_the_newest_of_the_package_cache()
    {
        string program = Path.Combine(_folder, "program");
        string cache = Path.Combine(_folder, "packages");
        Assert.Null(DemoModel.Find(program, () => cache));

        string old = Write(cache, "llamakivi.demomodel", "0.1.0", "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        File.SetLastWriteTimeUtc(old, DateTime.UnixEpoch);
        Directory.CreateDirectory(Path.Combine(cache, "llamakivi.demomodel", "0.3.0"));
        string newest = Write(cache, "llamakivi.demomodel", "0.2.0", "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        Assert.Equal(newest, DemoModel.Find(program, () => cache));

        string beside = Write(program, "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        Assert.Equal(beside, DemoModel.Find(program, () => cache));
    }

    [Fact]
    public void The_package_cache_is_the_one_that_NuGet_uses()
    {
        string project = Directory.CreateDirectory(Path.Combine(_folder, "repository", "project")).FullName;
        string user = Directory.CreateDirectory(Path.Combine(_folder, "user")).FullName;
        Assert.Null(PackageFolder.Find(null, project, user));

        Configure(user, "<config><add key='globalPackagesFolder' value='/user/packages' /></config>");
        Assert.Equal("/user/packages", PackageFolder.Find("", project, user));
        Configure(Path.Combine(_folder, "repository"), "<config><add key='GlobalPackagesFolder' value='../local' /></config>");
        Assert.Equal(Path.Combine(_folder, "local"), PackageFolder.Find(null, project, user));
        Configure(project, "<packageSources />");  // sets no folder
        Assert.Equal(Path.Combine(_folder, "local"), PackageFolder.Find(null, project, user));
        Configure(project, "<config>");  // no XML
        Assert.Equal(Path.Combine(_folder, "local"), PackageFolder.Find(null, project, user));
        Assert.Equal("/variable", PackageFolder.Find("/variable", project, user));

        static void Configure(string folder, string settings) => File.WriteAllText(Path.Combine(folder, "NuGet.Config"), $"<configuration>{settings}</configuration>");
    }

    private static string Write(params string[] parts)
    {
        string path = Path.Combine(parts);
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        File.WriteAllText(path, "");
        return path;
    }
}
