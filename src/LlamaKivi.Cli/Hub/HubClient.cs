using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;

namespace LlamaKivi.Cli.Hub;

/// <summary>Requests to the hub.</summary>
internal sealed class HubClient : IDisposable
{
    private readonly HubSettings _settings;
    private readonly HttpClient _http;

    public HubClient(HubSettings settings)
    {
        _settings = settings;
        // A download may take hours; a silent connection must not. Redirects to another host drop the token.
        _http = new HttpClient(new SocketsHttpHandler { ConnectTimeout = TimeSpan.FromSeconds(20), ResponseDrainTimeout = TimeSpan.Zero }) { Timeout = Timeout.InfiniteTimeSpan };
        _http.DefaultRequestHeaders.UserAgent.Add(new ProductInfoHeaderValue("llama-kivi", Native.NativeEngine.Version));
    }

    public void Dispose() => _http.Dispose();

    /// <summary>The commit of the main branch and its files.</summary>
    /// <exception cref="HubException">The repository does not exist, needs a token, or the answer is not the hub's.</exception>
    /// <exception cref="HttpRequestException">The hub was not reached.</exception>
    public async Task<(string Commit, IReadOnlyList<HubFile> Files)> ListAsync(HubReference reference, CancellationToken cancellationToken)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        timeout.CancelAfter(TimeSpan.FromSeconds(60));
        using HttpResponseMessage response = await SendAsync(reference, $"api/models/{reference.Repository}/revision/main?blobs=true", 0, timeout.Token).ConfigureAwait(false);
        string text = await response.Content.ReadAsStringAsync(timeout.Token).ConfigureAwait(false);
        try
        {
            using JsonDocument answer = JsonDocument.Parse(text);
            string commit = answer.RootElement.GetProperty("sha").GetString() ?? "";
            HubFile[] files = [.. answer.RootElement.GetProperty("siblings").EnumerateArray().Select(FileOf)];
            return HubCache.IsHex(commit, 40) && Array.TrueForAll(files, file => IsInside(file.Path))
                ? (commit, files)
                : throw new HubException($"{_settings.Endpoint} gave an answer about {reference.Repository} that is not a hub's: the commit '{commit}' or a file's path is not valid");
        }
        catch (Exception e) when (e is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new HubException($"{_settings.Endpoint} gave an answer about {reference.Repository} that is not a hub's: {e.Message}", e);
        }
    }

    /// <summary>Opens a file of a commit from a position on; the answer may begin at 0 all the same.</summary>
    public Task<HttpResponseMessage> OpenAsync(HubReference reference, string commit, string file, long from, CancellationToken cancellationToken) =>
        SendAsync(reference, $"{reference.Repository}/resolve/{commit}/{string.Join('/', file.Split('/').Select(Uri.EscapeDataString))}", from, cancellationToken);

    private async Task<HttpResponseMessage> SendAsync(HubReference reference, string path, long from, CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, $"{_settings.Endpoint}/{path}");
        request.Headers.Authorization = _settings.Token is { } token ? new AuthenticationHeaderValue("Bearer", token) : null;
        request.Headers.Range = from > 0 ? new RangeHeaderValue(from, null) : null;
        HttpResponseMessage response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken).ConfigureAwait(false);
        if (response.IsSuccessStatusCode)
        {
            return response;
        }

        using (response)
        {
            string remedy = _settings.Token is null ? "set HF_TOKEN to a token that may read it" : "the token (HF_TOKEN) may not read it; accept the model's conditions on its page, or use another token";
            throw response.StatusCode switch
            {
                // The hub does not tell a private repository from a missing one.
                HttpStatusCode.NotFound => new HubException($"{_settings.Endpoint} has no {reference.Repository}; check the name"),
                HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden => new HubException($"{reference.Repository} does not exist or is not public: {remedy}"),
                var status => new HttpRequestException($"{_settings.Endpoint}/{path} answered {(int)status} {response.ReasonPhrase}", null, status),
            };
        }
    }

    private static HubFile FileOf(JsonElement sibling)
    {
        long size = sibling.TryGetProperty("size", out JsonElement bytes) && bytes.ValueKind == JsonValueKind.Number ? bytes.GetInt64() : -1;
        string? sha256 = sibling.TryGetProperty("lfs", out JsonElement lfs) && lfs.ValueKind == JsonValueKind.Object && lfs.TryGetProperty("sha256", out JsonElement sum) ? sum.GetString()?.ToLowerInvariant() : null;
        return new HubFile(sibling.GetProperty("rfilename").GetString() ?? "", size, sha256 is not null && HubCache.IsHex(sha256, 64) ? sha256 : null);
    }

    // Names come from the network and become paths.
    private static bool IsInside(string path) => path.Length > 0 && path.Split('/').All(part => part is not ("" or "." or "..") && part.IndexOfAny(['\\', ':', '\0']) < 0);
}
