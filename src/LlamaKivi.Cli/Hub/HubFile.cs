using System.Text.RegularExpressions;

namespace LlamaKivi.Cli.Hub;

/// <summary>A file of a repository.</summary>
/// <param name="Path">Path in the repository, with slashes.</param>
/// <param name="Size">Bytes.</param>
/// <param name="Sha256">Checksum, 64 hexadecimal digits; null: the hub gave none.</param>
internal sealed partial record HubFile(string Path, long Size, string? Sha256)
{
    // The first that a repository has. Four bits cost little quality.
    private static readonly string[] DefaultQuants = ["Q4_K_M", "Q4_K_S", "Q4_0", "Q5_K_M", "Q8_0", "F16"];

    /// <summary>The file of a weight type; without one, the first of the default types, or the only file.</summary>
    /// <exception cref="HubException">No file fits, or it is one part of several.</exception>
    public static string Choose(HubReference reference, IReadOnlyList<string> paths)
    {
        string[] models = [.. paths.Where(IsModel).Order(StringComparer.Ordinal)];
        if (models.Length == 0)
        {
            throw new HubException($"{reference.Repository} has no GGUF file; name a repository with files that end in .gguf");
        }

        string? chosen = reference.Quant is { } quant
            ? Array.Find(models, path => HasQuant(path, quant))
            : DefaultQuants.Select(name => Array.Find(models, path => HasQuant(path, name))).FirstOrDefault(path => path is not null) ?? (models.Length == 1 ? models[0] : null);
        if (chosen is null)
        {
            string wanted = reference.Quant ?? "one of the default types";
            throw new HubException($"{reference.Repository} has no file of {wanted}; it has {string.Join(", ", models)}. Name one after a colon: -hf {reference.Repository}:QUANT");
        }

        return PartOfSeveral().IsMatch(chosen)
            ? throw new HubException($"{chosen} of {reference.Repository} is one part of a model in several files, which are not supported; choose a type that has one file")
            : chosen;
    }

    private static bool IsModel(string path) =>
        path.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase) && !System.IO.Path.GetFileName(path).StartsWith("mmproj", StringComparison.OrdinalIgnoreCase);

    // The type stands between delimiters: Q4_0 is not in "model-Q4_0_4_4.gguf".
    private static bool HasQuant(string path, string quant)
    {
        string name = System.IO.Path.GetFileNameWithoutExtension(path).ToUpperInvariant();
        for (int at = name.IndexOf(quant, StringComparison.Ordinal); at >= 0; at = name.IndexOf(quant, at + 1, StringComparison.Ordinal))
        {
            int end = at + quant.Length;
            if ((at == 0 || name[at - 1] is '-' or '.') && (end == name.Length || name[end] is '-' or '.'))
            {
                return true;
            }
        }

        return false;
    }

    [GeneratedRegex(@"-\d{5}-of-\d{5}\.gguf\z", RegexOptions.CultureInvariant | RegexOptions.IgnoreCase, matchTimeoutMilliseconds: Timeout.Infinite)]
    private static partial Regex PartOfSeveral();
}
