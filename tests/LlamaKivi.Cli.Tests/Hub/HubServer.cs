using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Cli.Tests.Hub;

/// <summary>A local server that answers as the hub does: the list of files, redirects to a second host, ranges. It also breaks connections on request, and serves as an HTTP proxy of itself.</summary>
internal sealed class HubServer : IDisposable
{
    public const string Commit = "0123456789abcdef0123456789abcdef01234567";

    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly Dictionary<string, byte[]> _files;

    public HubServer(params (string Name, byte[] Content)[] files)
    {
        _files = files.ToDictionary(file => file.Name, file => file.Content, StringComparer.Ordinal);
        _listener.Start();
        _ = AcceptAsync();
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    public string Endpoint => $"http://127.0.0.1:{Port}";

    /// <summary>Requests: "PATH" with its headers in lower case.</summary>
    public ConcurrentQueue<(string Path, Dictionary<string, string> Headers)> Requests { get; } = [];

    /// <summary>Numbers of body bytes after which the next downloads break; a download without a number is complete.</summary>
    public ConcurrentQueue<int> Breaks { get; } = [];

    public bool HasRanges { get; init; } = true;

    public string? Token { get; init; }

    /// <summary>Checksum of every file in the list, in place of the right one.</summary>
    public string? Checksum { get; init; }

    /// <summary>The list of files, in place of the right one.</summary>
    public string? List { get; set; }

    /// <summary>Answers that are errors of the server, before it works.</summary>
    public int Errors { get; set; }

    public IEnumerable<(string Path, Dictionary<string, string> Headers)> Downloads => Requests.Where(request => request.Path.StartsWith("/cdn/", StringComparison.Ordinal));

    public void Dispose()
    {
        _stop.Cancel();
        _listener.Dispose();
        _stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                _ = AnswerAsync(await _listener.AcceptTcpClientAsync(_stop.Token));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }

    private async Task AnswerAsync(TcpClient client)
    {
        try
        {
            using (client)
            {
                NetworkStream stream = client.GetStream();
                using var reader = new StreamReader(stream, Encoding.ASCII, leaveOpen: true);
                string path = (await reader.ReadLineAsync() ?? "").Split(' ') is [_, var target, _] ? target : "";
                if (Uri.TryCreate(path, UriKind.Absolute, out Uri? proxied) && proxied.Scheme == Uri.UriSchemeHttp)
                {
                    path = proxied.PathAndQuery;
                }

                var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
                for (string? line = await reader.ReadLineAsync(); !string.IsNullOrEmpty(line); line = await reader.ReadLineAsync())
                {
                    int colon = line.IndexOf(':', StringComparison.Ordinal);
                    headers[line[..colon]] = line[(colon + 1)..].Trim();
                }

                Requests.Enqueue((path, headers));
                await AnswerAsync(stream, path, headers);
            }
        }
        catch (IOException)
        {
            // The client went away.
        }
    }

    private Task AnswerAsync(NetworkStream stream, string path, Dictionary<string, string> headers)
    {
        if (Errors > 0)
        {
            Errors--;
            return WriteAsync(stream, "503 Service Unavailable", "", []);
        }

        if (path.StartsWith("/cdn/", StringComparison.Ordinal))
        {
            return DownloadAsync(stream, _files[Uri.UnescapeDataString(path["/cdn/".Length..])], headers);
        }

        if (Token is not null && (!headers.TryGetValue("Authorization", out string? given) || given != $"Bearer {Token}"))
        {
            return WriteAsync(stream, "401 Unauthorized", "", []);
        }

        string resolve = $"/owner/model-GGUF/resolve/{Commit}/";
        return path switch
        {
            "/api/models/owner/model-GGUF/revision/main?blobs=true" => WriteAsync(stream, "200 OK", "", Encoding.UTF8.GetBytes(List ?? Siblings())),
            _ when path.StartsWith(resolve, StringComparison.Ordinal) => WriteAsync(stream, "302 Found", $"Location: http://localhost:{Port}/cdn/{path[resolve.Length..]}\r\n", []),
            _ => WriteAsync(stream, "404 Not Found", "", []),
        };
    }

    private string Siblings() => JsonSerializer.Serialize(new
    {
        sha = Commit,
        siblings = _files.Select(file => new { rfilename = file.Key, size = file.Value.Length, lfs = new { sha256 = Checksum ?? Convert.ToHexStringLower(SHA256.HashData(file.Value)) } }),
    });

    private async Task DownloadAsync(NetworkStream stream, byte[] content, Dictionary<string, string> headers)
    {
        int from = HasRanges && headers.TryGetValue("Range", out string? range) ? int.Parse(range["bytes=".Length..^1], CultureInfo.InvariantCulture) : 0;
        string status = from > 0 ? "206 Partial Content" : "200 OK";
        string more = from > 0 ? $"Content-Range: bytes {from}-{content.Length - 1}/{content.Length}\r\n" : "";
        int length = Breaks.TryDequeue(out int bytes) ? Math.Min(bytes, content.Length - from) : content.Length - from;
        await stream.WriteAsync(Encoding.ASCII.GetBytes($"HTTP/1.1 {status}\r\nContent-Length: {content.Length - from}\r\n{more}Connection: close\r\n\r\n"));
        await stream.WriteAsync(content.AsMemory(from, length));
    }

    private static async Task WriteAsync(NetworkStream stream, string status, string headers, byte[] body)
    {
        await stream.WriteAsync(Encoding.ASCII.GetBytes($"HTTP/1.1 {status}\r\nContent-Length: {body.Length}\r\n{headers}Connection: close\r\n\r\n"));
        await stream.WriteAsync(body);
    }
}
