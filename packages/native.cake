// Loaded by build.cake: the native library of each platform and its tests.
using System.Text.RegularExpressions;
using System.Xml.Linq;

// The supported platforms. The key is the preset of CMakePresets.json; Emulator runs the native tests, empty if none is needed.
var platforms = new Dictionary<string, (string Library, string Emulator)>
{
    ["linux-x64"] = ("libllama-kivi.so", ""),
    ["linux-arm64"] = ("libllama-kivi.so", "qemu-aarch64 -L /usr/aarch64-linux-gnu"),
    ["win-x64"] = ("llama-kivi.dll", "wine"),
    ["osx-arm64"] = ("libllama-kivi.dylib", ""),
    ["osx-x64"] = ("libllama-kivi.dylib", ""),
};

// The newest glibc that a library may need. The default is that of Debian 12; releases are built with an older one.
var newestGlibc = Version.Parse(Argument("glibc", "2.36"));

string[] PackedRids()
{
    var rids = Argument("rid", System.Runtime.InteropServices.RuntimeInformation.RuntimeIdentifier).Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
    var unknown = rids.FirstOrDefault(rid => !platforms.ContainsKey(rid));
    return unknown is null ? rids : throw new CakeException(unknown.Contains("musl")
        ? $"{unknown} is not supported: the engine needs glibc. The platforms are {string.Join(", ", platforms.Keys)}"
        : $"--rid={unknown} is not a supported platform; use one of: {string.Join(", ", platforms.Keys)}");
}

string Output(string program, string arguments)
{
    var exitCode = StartProcess(program, new ProcessSettings { Arguments = arguments, RedirectStandardOutput = true }, out var lines);
    return exitCode == 0 ? string.Join('\n', lines) : throw new CakeException($"{program} {arguments}: exit {exitCode}");
}

// Checks that a library exports only the C interface and needs only glibc, no newer than newestGlibc.
void CheckLinuxLibrary(string path, string exports)
{
    string[] system = ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
    var needed = Regex.Matches(Output("readelf", $"--dynamic --wide {path}"), @"\(NEEDED\).*\[(.+)\]").Select(match => match.Groups[1].Value).ToArray();
    var glibc = Regex.Matches(Output("readelf", $"--version-info --wide {path}"), @"GLIBC_([0-9.]+)").Select(match => Version.Parse(match.Groups[1].Value)).Max();
    var exported = Output("nm", $"-D --defined-only --format=posix {path}").Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split(' ')[0]).ToArray();
    Information("{0}: glibc {1}, needs {2}, exports {3} symbols", path, glibc, string.Join(", ", needed), exported.Length);
    if (needed.Except(system).FirstOrDefault() is { } other)
    {
        throw new CakeException($"{path} needs {other}; a packaged library must link the compiler's runtimes statically and need only the C library");
    }

    if (exported.FirstOrDefault(symbol => !symbol.StartsWith(exports)) is { } symbol)
    {
        throw new CakeException($"{path} exports {symbol}; only names that begin with {exports} may be exported (native/cmake/*.exports)");
    }

    if (glibc > newestGlibc)
    {
        throw new CakeException($"{path} needs glibc {glibc}; packages may need at most {newestGlibc}. Build in a container of Debian 12");
    }
}

// Checks that a Windows library exports only the C interface and needs only libraries of Windows.
void CheckWindowsLibrary(string path)
{
    string[] system = ["KERNEL32.dll", "msvcrt.dll", "api-ms-win-core-synch-l1-2-0.dll"];
    var tables = Output("objdump", $"-p {path}");
    var needed = Regex.Matches(tables, @"DLL Name: (\S+)").Select(match => match.Groups[1].Value).ToArray();
    var exported = Regex.Matches(tables, @"^\s*\[ *[0-9]+\] ([A-Za-z_]\S*)\s*$", RegexOptions.Multiline).Select(match => match.Groups[1].Value).ToArray();
    Information("{0}: needs {1}, exports {2} symbols", path, string.Join(", ", needed), exported.Length);
    if (needed.Except(system).FirstOrDefault() is { } other)
    {
        throw new CakeException($"{path} needs {other}, which is not part of every Windows 10");
    }

    if (exported.Length == 0 || exported.Any(symbol => !symbol.StartsWith("lk_")))
    {
        throw new CakeException($"{path} exports {exported.FirstOrDefault(symbol => !symbol.StartsWith("lk_")) ?? "nothing"}; expected names that begin with lk_");
    }
}

Task("PackNative")
    .Description("Builds the engine for the platforms of --rid and checks what the libraries need.")
    .Does(() =>
    {
        foreach (var rid in PackedRids())
        {
            if (!HasArgument("prebuilt"))
            {
                Run("cmake", $"--preset {rid}");
                Run("cmake", $"--build --preset {rid} --parallel {Environment.ProcessorCount}");
            }

            if (rid.StartsWith("linux"))
            {
                CheckLinuxLibrary($"artifacts/native/{rid}/bin/{platforms[rid].Library}", "lk_");
            }
            else if (rid.StartsWith("win"))
            {
                CheckWindowsLibrary($"artifacts/native/{rid}/bin/{platforms[rid].Library}");
            }
        }

        if (HasArgument("cuda"))
        {
            if (!PackedRids().Contains("linux-x64"))
            {
                throw new CakeException("--cuda needs linux-x64 in --rid, because the plugin's package depends on the engine's");
            }

            if (!HasArgument("prebuilt"))
            {
                Run("cmake", "--preset linux-x64-cuda");
                Run("cmake", $"--build --preset linux-x64-cuda --parallel {Environment.ProcessorCount}");
            }

            CheckLinuxLibrary("artifacts/native/linux-x64-cuda/bin/libllama-kivi-cuda.so", "lk_device_plugin");
        }
    });

// The patterns of native/tests/left-out.txt for a platform: tests that fail or take too long under emulation.
string[] LeftOut(string rid) =>
    [.. System.IO.File.ReadAllLines("native/tests/left-out.txt")
        .Where(line => line.Length > 0 && line[0] != '#')
        .Select(line => line.Split(' ', 3))
        .Where(words => words[0] == rid)
        .Select(words => words[1])];

// Wine's prefix is outside the repository, because dotnet format would follow its links to the whole file system.
Dictionary<string, string> Emulation() => new()
{
    ["WINEDEBUG"] = "-all",
    ["WINEPREFIX"] = Environment.GetEnvironmentVariable("WINEPREFIX") ?? System.IO.Path.Combine(System.IO.Path.GetTempPath(), "llama-kivi-wine"),
};

// Runs the native tests of a platform in several processes and prints how many passed, were skipped and failed.
void RunNativeTests(string rid)
{
    var folder = artifacts.Combine($"native/{rid}");
    var command = $"{platforms[rid].Emulator} artifacts/native/{rid}/bin/llama-kivi-tests{(rid.StartsWith("win") ? ".exe" : "")}".Trim().Split(' ', 2);
    var emulated = platforms[rid].Emulator.Length > 0;
    var leftOut = emulated ? LeftOut(rid) : [];
    var filter = Argument("filter", "*") + (leftOut.Length > 0 ? $"{(Argument("filter", "").Contains('-') ? ":" : "-")}{string.Join(':', leftOut)}" : "");
    var shards = Argument("shards", Environment.ProcessorCount);
    var watch = System.Diagnostics.Stopwatch.StartNew();
    string Report(int shard) => $"{folder}/tests-{shard}.xml";
    var processes = Enumerable.Range(0, shards).Select(shard =>
    {
        if (FileExists(Report(shard)))
        {
            DeleteFile(Report(shard));
        }

        return StartAndReturnProcess(command[0], new ProcessSettings
        {
            Arguments = $"{(command.Length > 1 ? command[1] : "")} --gtest_brief=1 --gtest_filter={filter} --gtest_output=xml:artifacts/native/{rid}/tests-{shard}.xml",
            EnvironmentVariables = new Dictionary<string, string>(Emulation()) { ["GTEST_TOTAL_SHARDS"] = $"{shards}", ["GTEST_SHARD_INDEX"] = $"{shard}" },
        });
    }).ToArray();
    var codes = processes.Select(process =>
    {
        process.WaitForExit();
        return process.GetExitCode();
    }).ToArray();

    // A process that crashed wrote no report.
    var reports = Enumerable.Range(0, shards).Select(Report).Where(path => FileExists(path)).Select(path => XDocument.Load(path).Root).ToArray();
    int Sum(string attribute) => reports.Sum(report => (int)report.Attribute(attribute));
    var skipped = reports.Sum(report => report.Descendants("testcase").Count(test => (string)test.Attribute("result") == "skipped"));
    Information("{0}: {1} passed, {2} skipped, {3} failed, {4:0} s in {5} processes{6}", rid, Sum("tests") - skipped - Sum("failures") - Sum("disabled"), skipped, Sum("failures"),
        watch.Elapsed.TotalSeconds, shards, leftOut.Length > 0 ? $"; left out: {string.Join(", ", leftOut)} (native/tests/left-out.txt)" : "");
    if (codes.Any(code => code != 0) || reports.Length < shards || Sum("tests") == 0)
    {
        throw new CakeException($"native tests of {rid}: exit codes {string.Join(", ", codes)}; the reports are {folder}/tests-*.xml");
    }
}

Task("TestNative")
    .Description("Builds and runs the native tests of the platforms of --rid, under an emulator where needed.")
    .Does(() =>
    {
        foreach (var rid in PackedRids())
        {
            Run("cmake", $"--preset {rid}");
            Run("cmake", $"--build artifacts/native/{rid} --target llama-kivi-tests --parallel {Environment.ProcessorCount}");
            RunNativeTests(rid);
        }
    });
