using LlamaKivi.BindingsGenerator;

// Usage: [--check] [repository root]. --check writes nothing and exits with 1 if a committed file differs.
bool check = args.Contains("--check");
string? root = args.FirstOrDefault(arg => !arg.StartsWith('-')) ?? FindRoot(Environment.CurrentDirectory) ?? FindRoot(AppContext.BaseDirectory);
if (root is null)
{
    Console.Error.WriteLine("No LlamaKivi repository found. Run this inside the repository, or give its root as an argument.");
    return 2;
}

try
{
    var reader = new HeaderReader(Clang.Find(), HeaderPath(root));
    HeaderModel header = reader.Read();
    (string Path, string Text)[] files =
    [
        ("bindings/LlamaKivi.Native/NativeMethods.g.cs", new BindingsWriter(header).Write()),
        ("tests/LlamaKivi.Native.Tests/LayoutTests.g.cs", LayoutTestWriter.Write(reader.ReadLayouts(header))),
    ];
    return check ? Check(root, files) : Write(root, files);
}
catch (Exception e) when (e is GeneratorException or IOException)
{
    Console.Error.WriteLine(e.Message);
    return 2;
}

static string HeaderPath(string root) => Path.Combine(root, "native", "llama-kivi", "include", "llama_kivi.h");

static string? FindRoot(string start)
{
    string? folder = start;
    while (folder is not null && !File.Exists(HeaderPath(folder)))
    {
        folder = Path.GetDirectoryName(folder);
    }

    return folder;
}

static int Write(string root, (string Path, string Text)[] files)
{
    foreach ((string path, string text) in files)
    {
        string full = Path.Combine(root, path);
        bool same = File.Exists(full) && File.ReadAllText(full) == text;
        if (!same)
        {
            File.WriteAllText(full, text);
        }

        Console.WriteLine($"{path}: {(same ? "unchanged" : "written")}");
    }

    return 0;
}

static int Check(string root, (string Path, string Text)[] files)
{
    int differing = 0;
    foreach ((string path, string text) in files)
    {
        string full = Path.Combine(root, path);
        string[] committed = File.Exists(full) ? File.ReadAllText(full).Split('\n') : [];
        string[] generated = text.Split('\n');
        if (committed.AsSpan().SequenceEqual(generated))
        {
            Console.WriteLine($"{path}: up to date");
            continue;
        }

        int line = committed.AsSpan().CommonPrefixLength(generated, StringComparer.Ordinal);
        differing++;
        Console.Error.WriteLine($"{path}({line + 1}): differs from the generator's output");
        Console.Error.WriteLine($"  committed: {(line < committed.Length ? committed[line] : "(end of file)")}");
        Console.Error.WriteLine($"  generated: {(line < generated.Length ? generated[line] : "(end of file)")}");
    }

    if (differing > 0)
    {
        Console.Error.WriteLine("Run dotnet run --project bindings/generator -c Release and commit the result.");
    }

    return differing > 0 ? 1 : 0;
}
