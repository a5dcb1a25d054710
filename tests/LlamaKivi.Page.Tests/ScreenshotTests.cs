using Microsoft.Playwright;

namespace LlamaKivi.Page.Tests;

/// <summary>The pictures of the documentation. LLAMA_KIVI_SCREENSHOTS names the folder that receives them, docs/images; by default they go to a temporary folder.</summary>
public sealed class ScreenshotTests(Browser browser)
{
    [Theory]
    [InlineData(ColorScheme.Light, "page-light.png")]
    [InlineData(ColorScheme.Dark, "page-dark.png")]
    public async Task Screenshots_are_under_200_kB(ColorScheme scheme, string name)
    {
        await using OpenPage page = await browser.OpenAsync(scheme: scheme);
        string system = string.Join('\n', Enumerable.Range(1, 60).Select(rule => $"{rule}. Answer questions about programs in plain words, and say what you do not know."));
        await page.SetParametersAsync(tokens: 48, system);
        foreach (string question in (string[])["What is a linker?", "What is a compiler?", "How does a garbage collector work?"])
        {
            await page.Button("New conversation").ClickAsync();
            await page.SendAsync(question);
            await page.WaitForEndAsync();
        }

        await page.SetParametersAsync(tokens: 600, system);
        await page.SendAsync("And what does a generation mean there?");
        await page.WaitForTextAsync();
        await page.Expect(page.Page.Locator("#requests li")).Not.ToHaveCountAsync(0);
        await page.Page.EvaluateAsync("document.getElementById('side').scrollTop = 0");
        await Task.Delay(1500);

        string? folder = Environment.GetEnvironmentVariable("LLAMA_KIVI_SCREENSHOTS");
        byte[] image = await page.Page.ScreenshotAsync();
        await File.WriteAllBytesAsync(Path.Combine(folder ?? Path.GetTempPath(), folder is null ? $"llama-kivi-{Environment.ProcessId}-{name}" : name), image);
        Assert.InRange(image.Length, 10_000, 200_000);
        page.AssertQuiet();
    }
}
