using System.Net;
using System.Net.Http.Headers;
using System.Text.RegularExpressions;

namespace LlamaKivi.Page.Tests;

/// <summary>The page's files as HTTP serves them.</summary>
public sealed partial class PageFileTests(Browser browser)
{
    public static TheoryData<string, string> Files => new()
    {
        { "/", "text/html" },
        { "/page/app.js", "text/javascript" },
        { "/page/style.css", "text/css" },
        { "/page/icon.svg", "image/svg+xml" },
    };

    [Theory]
    [MemberData(nameof(Files))]
    public async Task Files_carry_type_policy_and_tag(string path, string type)
    {
        using HttpResponseMessage response = await browser.Server.Client.GetAsync(path);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(type, response.Content.Headers.ContentType!.MediaType);
        Assert.Contains("default-src 'self'", response.Headers.GetValues("Content-Security-Policy").Single(), StringComparison.Ordinal);
        Assert.Equal("nosniff", response.Headers.GetValues("X-Content-Type-Options").Single());
        Assert.True(response.Headers.CacheControl!.NoCache);

        using var again = new HttpRequestMessage(HttpMethod.Get, path);
        again.Headers.IfNoneMatch.Add(new EntityTagHeaderValue("\"other\""));
        again.Headers.IfNoneMatch.Add(response.Headers.ETag!);
        using HttpResponseMessage unchanged = await browser.Server.Client.SendAsync(again);
        Assert.Equal(HttpStatusCode.NotModified, unchanged.StatusCode);
        Assert.Empty(await unchanged.Content.ReadAsByteArrayAsync());

        using var head = new HttpRequestMessage(HttpMethod.Head, path);
        using HttpResponseMessage headers = await browser.Server.Client.SendAsync(head);
        Assert.Equal(HttpStatusCode.OK, headers.StatusCode);
        Assert.Equal(response.Content.Headers.ContentLength, headers.Content.Headers.ContentLength);
    }

    [Fact]
    public async Task Nothing_is_inline_and_nothing_comes_from_elsewhere()
    {
        string html = await browser.Server.Client.GetStringAsync("/");
        Assert.DoesNotMatch(InlineCode(), html);
        string[] files = [.. References().Matches(html).Select(match => match.Groups["file"].Value)];
        Assert.Contains("page/app.js", files);
        var seen = new HashSet<string>(files, StringComparer.Ordinal);
        for (var left = new Queue<string>(files); left.TryDequeue(out string? file);)
        {
            string text = await browser.Server.Client.GetStringAsync("/" + file);  // fails where the file is missing
            Assert.DoesNotContain("//cdn", text, StringComparison.Ordinal);
            Assert.DoesNotContain("innerHTML", text, StringComparison.Ordinal);
            Assert.DoesNotContain("https://", text, StringComparison.Ordinal);
            foreach (string import in Imports().Matches(text).Select(match => "page/" + match.Groups["file"].Value).Where(seen.Add))
            {
                left.Enqueue(import);
            }
        }

        Assert.True(seen.Count >= 8, string.Join(' ', seen));
    }

    [Fact]
    public async Task Unknown_files_are_not_found()
    {
        using HttpResponseMessage response = await browser.Server.Client.GetAsync("/page/../page/nothing.js");
        Assert.Equal(HttpStatusCode.NotFound, response.StatusCode);
    }

    [GeneratedRegex("""<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)""", RegexOptions.IgnoreCase, 1000)]
    private static partial Regex InlineCode();

    [GeneratedRegex("""(?:src|href)="(?<file>[^"#]+)""", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex References();

    [GeneratedRegex("""from '\./(?<file>[^']+)'""", RegexOptions.ExplicitCapture, 1000)]
    private static partial Regex Imports();
}
