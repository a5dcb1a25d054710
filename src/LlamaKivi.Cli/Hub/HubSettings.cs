namespace LlamaKivi.Cli.Hub;

/// <summary>Settings of the hub, from the environment variables that its other clients read. Proxies: HTTPS_PROXY, HTTP_PROXY, NO_PROXY (HttpClient reads them).</summary>
/// <param name="Endpoint">HF_ENDPOINT: address of the hub, without a slash at the end.</param>
/// <param name="CacheFolder">HF_HUB_CACHE, or hub/ in HF_HOME, or ~/.cache/huggingface/hub.</param>
/// <param name="Token">HF_TOKEN, or the content of HF_TOKEN_PATH, or of token in HF_HOME; null: none.</param>
/// <param name="IsOffline">HF_HUB_OFFLINE: the network is not used.</param>
internal sealed record HubSettings(string Endpoint, string CacheFolder, string? Token, bool IsOffline)
{
    public static HubSettings FromEnvironment() => From(Environment.GetEnvironmentVariable);

    public static HubSettings From(Func<string, string?> variable)
    {
        string? Value(string name) => variable(name) is { Length: > 0 } value ? value : null;

        string cache = Value("XDG_CACHE_HOME") ?? Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache");
        string home = Value("HF_HOME") ?? Path.Combine(cache, "huggingface");
        string tokenPath = Value("HF_TOKEN_PATH") ?? Path.Combine(home, "token");
        string? token = Value("HF_TOKEN") ?? (File.Exists(tokenPath) ? File.ReadAllText(tokenPath).Trim() : null);
        return new HubSettings(
            (Value("HF_ENDPOINT") ?? "https://huggingface.co").TrimEnd('/'),
            Value("HF_HUB_CACHE") ?? Path.Combine(home, "hub"),
            string.IsNullOrEmpty(token) ? null : token,
            Value("HF_HUB_OFFLINE")?.ToUpperInvariant() is "1" or "ON" or "YES" or "TRUE");
    }
}
