using System.Xml;
using System.Xml.Linq;

namespace LlamaKivi.Cli;

/// <summary>The folder into which NuGet unpacks packages.</summary>
internal static class PackageFolder
{
    private static readonly string[] ConfigNames = ["nuget.config", "NuGet.config", "NuGet.Config"];  // NuGet's spellings where case matters

    public static string Find()
    {
        string home = Environment.GetFolderPath(Environment.SpecialFolder.UserProfile);
        string userConfigs = OperatingSystem.IsWindows()
            ? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.ApplicationData), "NuGet")
            : Path.Combine(home, ".nuget", "NuGet");
        return Find(Environment.GetEnvironmentVariable("NUGET_PACKAGES"), Environment.CurrentDirectory, userConfigs) ?? Path.Combine(home, ".nuget", "packages");
    }

    /// <summary>The folder that is set: by the environment, else by the configuration closest to a folder, else by the user's; null: none.</summary>
    /// <param name="variable">Value of NUGET_PACKAGES; null or empty: not set.</param>
    /// <param name="folder">The folder whose configurations, and those above it, count.</param>
    /// <param name="userConfigs">The folder of the user's configuration.</param>
    internal static string? Find(string? variable, string folder, string userConfigs)
    {
        if (!string.IsNullOrEmpty(variable))
        {
            return variable;
        }

        for (DirectoryInfo? level = new(folder); level is not null; level = level.Parent)
        {
            if (Configured(level.FullName) is { } found)
            {
                return found;
            }
        }

        return Configured(userConfigs);
    }

    // A configuration that cannot be read concerns NuGet, not this program.
    private static string? Configured(string folder)
    {
        if (Array.Find(ConfigNames, name => File.Exists(Path.Combine(folder, name))) is not { } file)
        {
            return null;
        }

        try
        {
            string? value = XDocument.Load(Path.Combine(folder, file)).Root?.Elements("config").Elements("add")
                .LastOrDefault(setting => string.Equals((string?)setting.Attribute("key"), "globalPackagesFolder", StringComparison.OrdinalIgnoreCase))?.Attribute("value")?.Value;
            return string.IsNullOrWhiteSpace(value) ? null : Path.GetFullPath(Environment.ExpandEnvironmentVariables(value), folder);
        }
        catch (Exception e) when (e is XmlException or IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
