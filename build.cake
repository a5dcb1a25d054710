// Native -> Bindings -> Build -> Test -> Pack. Run: dotnet tool restore && dotnet cake [--target=Test] [--configuration=Debug]
var target = Argument("target", "Pack");
var configuration = Argument("configuration", "Release");
var packages = MakeAbsolute(Directory("artifacts/packages"));

void DotNet(string arguments)
{
    Information("dotnet {0}", arguments);
    if (StartProcess("dotnet", arguments) is var exitCode and not 0)
    {
        throw new CakeException($"dotnet {arguments}: exit {exitCode}");
    }
}

Task("Native")
    .Description("Builds the native engine, if its sources changed.")
    .Does(() => DotNet($"build bindings/LlamaKivi.Native -c {configuration}"));

Task("Bindings")
    .Description("Writes the C# bindings anew from llama_kivi.h.")
    .IsDependentOn("Native")
    .Does(() => DotNet("run --project bindings/generator -c Release"));

Task("Build")
    .IsDependentOn("Bindings")
    .Does(() => DotNet($"build LlamaKivi.slnx -c {configuration}"));

Task("Test")
    .IsDependentOn("Build")
    .Does(() => DotNet($"test -c {configuration} --no-build"));

Task("Pack")
    .Description("Makes the NuGet packages of this machine's runtime identifier.")
    .IsDependentOn("Test")
    .Does(() => DotNet($"pack LlamaKivi.slnx -c {configuration} --no-build -o \"{packages}\""));

RunTarget(target);
