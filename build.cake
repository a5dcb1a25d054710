// The front door: dotnet tool restore && dotnet cake [--target=NAME] [--configuration=Debug]
//
//   Native     builds the engine                    Lint       formatting, include directions, clang-tidy, analyzers
//   Bindings   writes the C# bindings               Coverage   line coverage of native and managed code
//   Build      everything                           Docs       the documentation site, in artifacts/docs/site
//   Test       all tests (the default)              Bench      speed of the demo model on this machine
//   TestNative   native tests by platform             Pack       NuGet packages, in artifacts/packages
//   TestManaged  managed tests by platform
//
// --check: Bindings and Lint report differences and write nothing.
// --rid=linux-x64,linux-arm64,win-x64: platforms of Pack, TestNative and TestManaged (default: this machine's).
// --cuda: Pack also makes the CUDA plugin's package. --prebuilt: Pack uses the libraries in artifacts/native.
// --filter: tests that TestNative runs (a GoogleTest filter). packages/*.cake defines these three targets.
#load packages/native.cake
#load packages/managed.cake
#load packages/packages.cake

var target = Argument("target", "Test");
var configuration = Argument("configuration", "Release");
var check = HasArgument("check");
var artifacts = MakeAbsolute(Directory("artifacts"));

void Run(string program, string arguments, string workingDirectory = ".")
{
    Information("{0} {1}", program, arguments);
    var exitCode = StartProcess(program, new ProcessSettings { Arguments = arguments, WorkingDirectory = workingDirectory });
    if (exitCode != 0)
    {
        throw new CakeException($"{program} {arguments}: exit {exitCode}");
    }
}

void DotNet(string arguments) => Run("dotnet", arguments);

string[] NativeFiles(params string[] extensions) =>
    [.. GetFiles("native/**/*").Select(file => MakeAbsolute(Directory(".")).GetRelativePath(file).FullPath)
        .Where(file => extensions.Any(extension => file.EndsWith(extension)))];

// The public header is laid out by hand, with its comments in columns.
string[] FormattedFiles() => [.. NativeFiles(".h", ".cpp", ".cu", ".cuh").Where(file => !file.EndsWith("/llama_kivi.h"))];

Task("Native")
    .Description("Builds the native engine, if its sources changed.")
    .Does(() => DotNet($"build bindings/LlamaKivi.Native -c {configuration}"));

Task("Bindings")
    .Description("Writes the C# bindings from llama_kivi.h; --check: compares them.")
    .IsDependentOn("Native")
    .Does(() => DotNet($"run --project bindings/generator -c Release{(check ? " -- --check" : "")}"));

Task("Build")
    .Description("Builds everything.")
    .Does(() => DotNet($"build LlamaKivi.slnx -c {configuration}"));

Task("Test")
    .Description("Runs all tests, managed and native.")
    .Does(() => DotNet($"test -c {configuration}"));

Task("Format")
    .Description("Formats native and managed code; --check: compares.")
    .Does(() =>
    {
        Run("clang-format", $"{(check ? "--dry-run -Werror" : "-i")} {string.Join(' ', FormattedFiles())}");
        DotNet($"format whitespace --folder{(check ? " --verify-no-changes" : "")} --include bench/ bindings/ samples/ src/ tests/ --exclude bench/peers/serving/node_modules/ bench/peers/stock-llama-cpp/node_modules/");
    });

Task("Includes")
    .Description("Checks that includes of the engine point in allowed directions (native/include-directions.txt).")
    .Does(() =>
    {
        var allowed = new Dictionary<string, string[]>();
        var wrong = new List<string>();
        foreach (var line in System.IO.File.ReadAllLines("native/include-directions.txt").Where(line => line.Length > 0 && line[0] != '#'))
        {
            var folder = line[..line.IndexOf(':')];
            var folders = line[(folder.Length + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            wrong.AddRange(folders.Where(name => !allowed.ContainsKey(name)).Select(name => $"native/include-directions.txt: {folder} lists {name}, which is not on a line above it"));
            allowed.Add(folder, folders);
        }

        const string root = "native/llama-kivi/src/";
        string FolderOf(string path) => path.Contains('/') ? path[..path.LastIndexOf('/')] : ".";
        foreach (var file in NativeFiles(".h", ".cpp", ".cu", ".cuh").Where(file => file.StartsWith(root)))
        {
            var from = FolderOf(file[root.Length..]);
            foreach (var line in System.IO.File.ReadLines(file).Where(line => line.StartsWith("#include \"") && !line.Contains("llama_kivi.h")))
            {
                var included = line.Split('"')[1];
                var to = FolderOf(included);
                if (to != from && !(allowed.TryGetValue(from, out var folders) && folders.Contains(to)))
                {
                    wrong.Add($"{file} includes {included}: {from} may include {(allowed.ContainsKey(from) ? string.Join(", ", allowed[from]) : "nothing, as it is not listed")}");
                }
            }
        }

        wrong.ForEach(Error);
        if (wrong.Count > 0)
        {
            throw new CakeException($"{wrong.Count} includes or lines of native/include-directions.txt point in a direction that is not allowed");
        }
    });

Task("Tidy")
    .Description("Runs clang-tidy (Debian: clang-tidy-19) over the engine's files that sizes of files and requests reach.")
    .Does(() =>
    {
        Run("cmake", "-S . -B artifacts/tidy -DCMAKE_BUILD_TYPE=Release -DLK_CUDA=OFF -DLK_BUILD_TESTS=OFF -DCMAKE_EXPORT_COMPILE_COMMANDS=ON");
        var folders = new[] { "base", "gguf", "kv", "model", "runtime" };
        var files = NativeFiles(".cpp", ".h").Where(file => folders.Any(folder => file.StartsWith($"native/llama-kivi/src/{folder}/")))
            .Where(file => !file.Contains("windows")).ToArray();  // no headers of that system here
        var failed = new System.Collections.Concurrent.ConcurrentBag<string>();
        System.Threading.Tasks.Parallel.ForEach(files, new System.Threading.Tasks.ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount }, file =>
        {
            // The other checks reach a header through the files that include it; misc-include-cleaner reads only the file that it is given.
            var checks = file.EndsWith(".h") ? "--checks=-*,misc-include-cleaner" : "";
            if (StartProcess("clang-tidy-19", $"-p artifacts/tidy --quiet {checks} {file}") != 0)
            {
                failed.Add(file);
            }
        });
        if (!failed.IsEmpty)
        {
            throw new CakeException($"clang-tidy: {string.Join(", ", failed.Order())}");
        }
    });

Task("Lint")
    .Description("Formatting, include directions and clang-tidy; compiler and analyzer warnings are errors in every build.")
    .IsDependentOn("Format")
    .IsDependentOn("Includes")
    .IsDependentOn("Tidy");

Task("Coverage")
    .Description("Prints line coverage: native code by gcovr (Debian: gcovr), managed code by coverlet.")
    .Does(() =>
    {
        var native = artifacts.Combine("coverage/native");
        var managed = artifacts.Combine("coverage/managed");
        CleanDirectory(managed);
        Run("cmake", $"-S . -B {native} -DCMAKE_BUILD_TYPE=Release -DLK_CUDA=OFF -DLK_COVERAGE=ON");
        Run("cmake", $"--build {native} --parallel {Environment.ProcessorCount}");
        // Instrumented code is slow: tests of time, and those that repeat what others reach for every cut and program, are left out.
        Run($"{native}/llama-kivi-tests", "--gtest_brief=1 --gtest_filter=-*Invarian*:*RandomPrograms*");
        DotNet($"test -c {configuration} --coverlet --coverlet-output-format cobertura --results-directory {managed} --filter-not-class *GrammarTimeTests");

        Run("gcovr", $"--root . --filter native/llama-kivi/src/ {native} --print-summary --output {native}/coverage.txt");

        // Several test projects run the same assembly: a line is covered if any of them ran it. Reports name files relative to roots of their own.
        var lines = GetFiles($"{managed}/**/*.cobertura*.xml")
            .Select(report => System.Xml.Linq.XDocument.Load(report.FullPath))
            .SelectMany(report => report.Descendants("class").Select(type => (Type: type, File: report.Descendants("source")
                .Select(root => System.IO.Path.Combine(root.Value, (string)type.Attribute("filename"))).FirstOrDefault(System.IO.File.Exists))))
            .Where(type => type.File is not null && !type.File.Contains("/obj/"))
            .SelectMany(type => type.Type.Descendants("line").Select(line => (
                Assembly: (string)type.Type.Ancestors("package").First().Attribute("name"),
                type.File,
                Number: (int)line.Attribute("number"),
                Hits: (long)line.Attribute("hits"))))
            .GroupBy(line => (line.Assembly, line.File, line.Number), line => line.Hits > 0)
            .GroupBy(line => line.Key.Assembly, line => line.Any(hit => hit));
        foreach (var assembly in lines.OrderBy(assembly => assembly.Key))
        {
            Information("{0}: {1:0.0}% of {2} lines", assembly.Key, 100.0 * assembly.Count(hit => hit) / assembly.Count(), assembly.Count());
        }
    });

Task("Docs")
    .Description("Builds the documentation site. A warning fails it.")
    .IsDependentOn("Native")
    .Does(() => DotNet("docfx docfx.json --warningsAsErrors"));

Task("Bench")
    .Description("Measures prefill and decode of the demo model by cache type.")
    .IsDependentOn("Build")
    .Does(() => DotNet($"run --no-build -c {configuration} --project src/LlamaKivi.Cli -- bench -d 0,3072 --kv-cache f16,q8_0,q4_0,kivi4,kivi2"));

RunTarget(target);
