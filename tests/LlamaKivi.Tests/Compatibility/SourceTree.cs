using System.Text.RegularExpressions;

namespace LlamaKivi.Tests;

/// <summary>Source files of the repository, for tests of its structure.</summary>
internal static partial class SourceTree
{
    /// <summary>Root folder of the checkout.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>C# files below a folder, by relative path.</summary>
    public static Dictionary<string, string> Read(string folder) => Directory.EnumerateFiles(Path.Combine(Root, folder), "*.cs", SearchOption.AllDirectories)
        .Select(file => Path.GetRelativePath(Path.Combine(Root, folder), file).Replace('\\', '/'))
        .Where(file => !file.StartsWith("bin/", StringComparison.Ordinal) && !file.StartsWith("obj/", StringComparison.Ordinal))
        .ToDictionary(file => file, file => File.ReadAllText(Path.Combine(Root, folder, file)));

    /// <summary>Code without comments and string contents; interpolated expressions stay.</summary>
    public static string Code(string source) => Strings().Replace(Comments().Replace(source, ""), "\"\"");

    /// <summary>Names of the types declared in a file.</summary>
    public static IEnumerable<string> Types(string code) => TypeNames().Matches(code).Select(match => match.Groups[1].Value);

    /// <summary>Whether code contains an identifier.</summary>
    public static bool Names(string code, string identifier) => Regex.IsMatch(code, $@"(?<![\w@]){Regex.Escape(identifier)}\b");

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "LlamaKivi.slnx")))
        {
            folder = Path.GetDirectoryName(folder);
        }

        return folder ?? throw new InvalidOperationException("The tests do not run inside a checkout: no folder above them has LlamaKivi.slnx.");
    }

    [GeneratedRegex(@"//[^\n]*")]
    private static partial Regex Comments();

    [GeneratedRegex(@"(?<!\$)""(?:[^""\\\n]|\\.)*""")]
    private static partial Regex Strings();

    [GeneratedRegex(@"\b(?:class|struct|interface|enum|record(?:\s+struct|\s+class)?|delegate\s+[\w<>?.]+)\s+([A-Z]\w*)")]
    private static partial Regex TypeNames();
}
