using Microsoft.Playwright;

namespace LlamaKivi.Page.Tests;

/// <summary>The pictures of the documentation.</summary>
/// <remarks>
/// LLAMA_KIVI_SCREENSHOTS names the folder that receives them, docs/images; without it nothing is written. Those of docs/images show SmolLM2, by LLAMA_KIVI_PAGE_MODEL.
/// </remarks>
public sealed class ScreenshotTests(Browser browser)
{
    [Theory]
    [InlineData(ColorScheme.Light, "page-light.png")]
    [InlineData(ColorScheme.Dark, "page-dark.png")]
    public async Task Screenshots_are_under_200_kB(ColorScheme scheme, string name)
    {
        await using OpenPage page = await browser.OpenAsync(scheme: scheme);
        string system = File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "kv-cache.md"))[..4000];  // a prefix that the conversations share
        await page.SetParametersAsync(tokens: 48, system);
        foreach (string question in (string[])["What is a linker?", "What is a compiler?", "How does a garbage collector work?"])
        {
            await page.Button("New conversation").ClickAsync();
            await page.SendAsync(question);
            await page.WaitForEndAsync();
        }

        await page.SetParametersAsync(tokens: 600, system);
        await page.Page.GetByLabel("Temperature").FillAsync("0.7");
        await page.Page.GetByLabel("Seed").FillAsync("7");
        await page.SendAsync("Which objects does it keep, and why?");
        await page.WaitForTextAsync();
        await page.Page.Mouse.MoveAsync(640, 400);
        await page.Page.EvaluateAsync("document.getElementById('side').scrollTop = 0");
        await Task.Delay(1000);

        byte[] image = await page.Page.ScreenshotAsync();
        if (Environment.GetEnvironmentVariable("LLAMA_KIVI_SCREENSHOTS") is { Length: > 0 } folder)
        {
            await File.WriteAllBytesAsync(Path.Combine(folder, name), image);
        }

        Assert.InRange(image.Length, 10_000, 200_000);
        page.AssertQuiet();
    }
}
