// Loaded by build.cake: makes the NuGet packages and checks their content.
using System.IO.Compression;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using System.Text.RegularExpressions;
using System.Xml.Linq;

// What git adds to a build: SourceLink knows hosts such as GitHub, and without a repository there is neither a commit nor a root of its files.
bool HasRepository() => DirectoryExists(".git") || FileExists(".git");
bool HasHostedRemote() => HasRepository() && Output("git", "remote --verbose").Contains("github.com");

// Size limit of a tool's package.
const double MostToolMegabytes = 25;

// Checks that symbols belong to their assembly and that builds are deterministic: source paths are relative to the repository.
void CheckSymbols(string name, ZipArchive package, ZipArchive symbols)
{
    byte[] Read(ZipArchive archive, string entry)
    {
        using var stream = (archive.GetEntry(entry) ?? throw new CakeException($"{name} has no {entry}")).Open();
        using var memory = new System.IO.MemoryStream();
        stream.CopyTo(memory);
        return memory.ToArray();
    }

    foreach (var path in package.Entries.Select(entry => entry.FullName).Where(entry => entry.StartsWith("lib/") && entry.EndsWith(".dll")))
    {
        using var assembly = new PEReader(new System.IO.MemoryStream(Read(package, path)));
        var entries = assembly.ReadDebugDirectory();
        var guid = assembly.ReadCodeViewDebugDirectoryData(entries.First(entry => entry.Type == DebugDirectoryEntryType.CodeView)).Guid;
        using var provider = MetadataReaderProvider.FromPortablePdbStream(new System.IO.MemoryStream(Read(symbols, System.IO.Path.ChangeExtension(path, ".pdb"))));
        var reader = provider.GetMetadataReader();
        if (new Guid(reader.DebugMetadataHeader.Id.Take(16).ToArray()) != guid)
        {
            throw new CakeException($"the symbols of {name} belong to another build of {path}");
        }

        var outside = reader.Documents.Select(handle => reader.GetString(reader.GetDocument(handle).Name)).FirstOrDefault(document => HasRepository() && !document.StartsWith("/_/"));
        if (outside is not null || entries.All(entry => entry.Type != DebugDirectoryEntryType.Reproducible))
        {
            throw new CakeException($"{path} of {name} is not deterministic: {outside ?? "no mark in its debug directory"}");
        }

        var hasLinks = reader.CustomDebugInformation.Select(reader.GetCustomDebugInformation).Any(information => reader.GetGuid(information.Kind) == new Guid("CC110556-A091-4D38-9FEC-25AB9A351A6A"));
        if (HasHostedRemote() && !hasLinks)
        {
            throw new CakeException($"the symbols of {path} of {name} have no source links, and the checkout has a remote on GitHub");
        }
    }
}

// Checks the content of a package and prints a summary.
void CheckPackage(string path)
{
    var file = new System.IO.FileInfo(path);
    using var package = ZipFile.OpenRead(path);
    var entries = package.Entries.Select(entry => entry.FullName).ToArray();
    using var stream = package.Entries.Single(entry => entry.FullName.EndsWith(".nuspec")).Open();
    var metadata = XDocument.Load(stream).Root.Elements().Single();
    string Value(string element) => metadata.Elements().FirstOrDefault(child => child.Name.LocalName == element)?.Value ?? "";
    var id = Value("id");
    var missing = new[] { "license", "tags", "description", "authors", "icon", "readme" }.Where(element => Value(element).Length == 0)
        .Concat(new[] { Value("icon"), Value("readme") }.Where(entry => !entries.Contains(entry)))
        .Concat(!HasRepository() || metadata.Elements().Any(child => child.Name.LocalName == "repository" && child.Attribute("commit") is not null) ? [] : ["repository commit"]);
    if (missing.FirstOrDefault() is { } lacking)
    {
        throw new CakeException($"{file.Name} has no {lacking}");
    }

    if (entries.Any(entry => entry.StartsWith("lib/")))
    {
        using var symbols = ZipFile.OpenRead(System.IO.Path.ChangeExtension(path, ".snupkg"));
        CheckSymbols(file.Name, package, symbols);
    }

    // A platform's tool contains the native files of that platform only.
    var rids = entries.Where(entry => entry.Contains("runtimes/")).Select(entry => Regex.Match(entry, "runtimes/([^/]+)/").Groups[1].Value).Distinct().Order().ToArray();
    var expected = id switch
    {
        "LlamaKivi.Backend.Cpu" => PackedRids(),
        "LlamaKivi.Backend.Cuda.Linux" => ["linux-x64"],
        _ => PackedRids().Where(rid => id == $"LlamaKivi.Cli.{rid}").ToArray(),
    };
    if (!rids.SequenceEqual(expected.Order()))
    {
        throw new CakeException($"{file.Name} has the native files of {string.Join(", ", rids)}, expected {string.Join(", ", expected)}");
    }

    if (id.StartsWith("LlamaKivi.Cli") && file.Length > MostToolMegabytes * 1e6)
    {
        throw new CakeException($"{file.Name} has {file.Length / 1e6:0.0} MB; a tool's package may have at most {MostToolMegabytes}");
    }

    Information("{0,-48} {1,8:0.00} MB, {2,3} files{3}", file.Name, file.Length / 1e6, entries.Length, rids.Length > 0 ? $", native: {string.Join(", ", rids)}" : "");
}

Task("CheckPackages")
    .Description("Checks the content of the packages in artifacts/packages and prints their sizes.")
    .Does(() =>
    {
        var packages = GetFiles("artifacts/packages/*.nupkg").Select(file => file.FullPath).Order().ToArray();
        foreach (var package in packages)
        {
            CheckPackage(package);
        }

        if (packages.Length == 0)
        {
            throw new CakeException("artifacts/packages has no packages; make them with dotnet cake --target=Pack");
        }
    });

Task("MakePackages")
    .IsDependentOn("PackNative")
    .Does(() =>
    {
        CleanDirectory(artifacts.Combine("packages"));
        var rids = string.Join("%3B", PackedRids());
        DotNet($"pack packages/LlamaKivi.Packages.slnf -c {configuration} -o \"{artifacts}/packages\" -p:LkPacking=true -p:LkRids={rids} " +
            $"-p:ContinuousIntegrationBuild=true{(HasArgument("cuda") ? " -p:LkPackCuda=true" : "")}");
    });

Task("Pack")
    .Description("Makes the NuGet packages of the platforms of --rid, in artifacts/packages, and checks them.")
    .IsDependentOn("MakePackages")
    .IsDependentOn("CheckPackages");
