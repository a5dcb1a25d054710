// Loaded by build.cake: runs managed tests of other platforms under an emulator, with the platform's .NET runtime.

// Test classes by project. Those of LlamaKivi.Cli.Tests start the tool as a process, which works under Wine but not under qemu-user.
var managedTests = new Dictionary<string, string[]>
{
    ["LlamaKivi.Native.Tests"] = ["NativeLibraryLoaderTests", "NativeEngineTests", "NativeStatusTests", "LayoutTests", "GgufFileTests", "ModelHandleTests", "ModelQuantizerTests", "ContextHandleTests"],
    ["LlamaKivi.Cli.Tests"] = ["ChatCommandTests", "InputTests", "DemoModelTests"],
};

// Publishes a project for a platform, with the engine in artifacts/native, and returns the folder.
DirectoryPath PublishFor(string rid, string project)
{
    var name = System.IO.Path.GetFileName(project);
    var folder = artifacts.Combine($"tests/{rid}/{name}");
    DotNet($"publish {project} -c {configuration} -r {rid} --self-contained -p:LkPacking=true -p:PublishSelfContained=true -p:InvariantGlobalization=true -o {folder}");
    var engine = folder.Combine($"runtimes/{rid}/native");
    EnsureDirectoryExists(engine);
    CopyFileToDirectory($"artifacts/native/{rid}/bin/{platforms[rid].Library}", engine);
    EnsureDirectoryExists(folder.Combine("models"));
    CopyFileToDirectory("models/kivi-demo-llama-37m-q4_k_m.gguf", folder.Combine("models"));
    return folder;
}

Task("TestManaged")
    .Description("Runs managed tests of the platforms of --rid under their emulators. The engines are in artifacts/native (TestNative, Pack).")
    .Does(() =>
    {
        var failed = new List<string>();
        foreach (var rid in PackedRids())
        {
            var emulator = platforms[rid].Emulator;
            var suffix = rid.StartsWith("win") ? ".exe" : "";
            var environment = Emulation();
            if (suffix.Length > 0)
            {
                environment["LK_PROGRAM"] = "Z:" + PublishFor(rid, "src/LlamaKivi.Cli").FullPath.Replace('/', '\\') + "\\llama-kivi.exe";
            }

            foreach (var project in managedTests.Keys.Where(project => suffix.Length > 0 || project != "LlamaKivi.Cli.Tests"))
            {
                var folder = PublishFor(rid, $"tests/{project}");
                // One process per class: under Wine 8 a long test process may hang in its finalizers.
                foreach (var name in managedTests[project])
                {
                    var command = $"{emulator} ./{project}{suffix} -class *.{name}".Trim().Split(' ', 2);
                    Information("{0}: {1} {2}", rid, project, name);
                    if (StartProcess(command[0], new ProcessSettings { Arguments = command[1], WorkingDirectory = folder, EnvironmentVariables = environment }) != 0)
                    {
                        failed.Add($"{rid} {name}");
                    }
                }
            }
        }

        if (failed.Count > 0)
        {
            throw new CakeException($"managed tests failed: {string.Join(", ", failed)}");
        }
    });
