using System.Text.RegularExpressions;

namespace LlamaKivi.Cli.Hub;

/// <summary>A repository of the hub and a weight type: "owner/repo:Q4_K_M".</summary>
/// <param name="Owner">Owner.</param>
/// <param name="Name">Name of the repository.</param>
/// <param name="Quant">Weight type in file names, upper case; null: the default choice.</param>
internal sealed partial record HubReference(string Owner, string Name, string? Quant)
{
    public string Repository => $"{Owner}/{Name}";

    /// <exception cref="UsageException">The text is not a reference.</exception>
    public static HubReference Parse(string text)
    {
        Match match = Pattern().Match(text);
        return match.Success && !match.Groups["name"].Value.Contains("..", StringComparison.Ordinal)
            ? new HubReference(match.Groups["owner"].Value, match.Groups["name"].Value, match.Groups["quant"] is { Success: true } quant ? quant.Value.ToUpperInvariant() : null)
            : throw new UsageException($"-hf: '{text}' is not OWNER/REPOSITORY or OWNER/REPOSITORY:QUANT, such as bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M");
    }

    [GeneratedRegex(@"\A(?<owner>\w[\w.-]*)/(?<name>\w[\w.-]*)(:(?<quant>\w+))?\z", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: Timeout.Infinite)]
    private static partial Regex Pattern();
}
