using System.Globalization;
using System.Text.RegularExpressions;
using LlamaKivi.Hosting;
using Microsoft.Playwright;

namespace LlamaKivi.Page.Tests;

/// <summary>The live panel, against the engine's own figures.</summary>
public sealed partial class EnginePanelTests(Browser browser)
{
    [Fact]
    public async Task The_panel_shows_the_engines_figures()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 1500);
        await page.SendAsync("Tell a story about a dog and a cat.");
        await page.Expect(page.Page.Locator("#requests li")).Not.ToHaveCountAsync(0);
        await page.Expect(page.Page.Locator("#requests li").First).ToContainTextAsync(Written());
        await page.Expect(page.Page.Locator("#rate")).Not.ToHaveTextAsync("0.0");
        await page.Expect(page.Page.Locator("#batch")).Not.ToHaveTextAsync("0 tokens");
        await page.WaitForEndAsync();

        await page.Expect(page.Page.Locator("#running")).ToHaveTextAsync("0");
        EngineStatus status = browser.Server.Engine.Status;
        Assert.True(status.QuantizedBytes > 0, "The conversation is too short for quantized pages.");
        await page.Expect(page.Page.Locator("#tokens")).ToHaveTextAsync(
            string.Create(CultureInfo.InvariantCulture, $"{status.CacheTokens:N0} of {status.CacheCapacity:N0} tokens"));
        await page.Expect(page.Page.Locator("#f16-bytes")).ToHaveTextAsync(Bytes(status.F16Bytes));
        await page.Expect(page.Page.Locator("#used-bytes")).ToHaveTextAsync(Bytes(status.QuantizedBytes + status.ExactBytes));
        await page.Expect(page.Page.Locator("#quantized-bytes")).ToHaveTextAsync(Bytes(status.QuantizedBytes));
        await page.Expect(page.Page.Locator("#exact-bytes")).ToHaveTextAsync(Bytes(status.ExactBytes));
        await page.Expect(page.Page.Locator("#saving")).ToHaveTextAsync(
            string.Create(CultureInfo.InvariantCulture, $"{(double)status.F16Bytes / (status.QuantizedBytes + status.ExactBytes):F1}×"));
        await page.Expect(page.Page.Locator("#type-name")).ToHaveTextAsync("kivi2");
        page.AssertQuiet();
    }

    [Fact]
    public async Task The_next_turn_hits_the_prefix_cache()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 8);
        await page.SendAsync("Name a river in Africa.");
        await page.WaitForEndAsync();
        // A turn misses if the answer before it tokenizes otherwise as part of the prompt.
        string note = "";
        for (int turn = 0; turn < 4 && !note.Contains("of the prompt from the prefix cache", StringComparison.Ordinal); turn++)
        {
            await page.SendAsync("And one in Asia.");
            await page.WaitForEndAsync();
            note = await page.Answer.Locator(".note").InnerTextAsync();
        }

        Assert.Contains("of the prompt from the prefix cache", note, StringComparison.Ordinal);
        await page.Expect(page.Page.Locator("#prefix")).ToContainTextAsync(Hits());
        page.AssertQuiet();
    }

    [Fact]
    public async Task A_server_that_has_gone_is_shown_and_found_again()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.Page.RouteAsync("**/engine*", route => route.AbortAsync());
        await page.Expect(page.Page.Locator("#state-text")).ToHaveTextAsync("Server unreachable");
        await page.Page.UnrouteAllAsync(new PageUnrouteAllOptions { Behavior = UnrouteBehavior.IgnoreErrors });
        await page.Expect(page.Page.Locator("#state-text")).ToHaveTextAsync("Ready");
        page.AssertQuiet(expected: "ERR_FAILED");
    }

    private static string Bytes(long value)
    {
        string[] units = ["B", "KiB", "MiB", "GiB"];
        int unit = 0;
        double scaled = value;
        for (; scaled >= 1024; scaled /= 1024)
        {
            unit++;
        }

        return string.Create(CultureInfo.InvariantCulture, $"{(unit == 0 || scaled >= 100 ? scaled.ToString("F0", CultureInfo.InvariantCulture) : scaled.ToString("F1", CultureInfo.InvariantCulture))} {units[unit]}");
    }

    [GeneratedRegex("[1-9][0-9,]* prompt, [1-9][0-9,]* written", RegexOptions.None, Timeout.Infinite)]
    private static partial Regex Written();

    [GeneratedRegex("^[1-9][0-9]* of [1-9][0-9]* requests$", RegexOptions.None, Timeout.Infinite)]
    private static partial Regex Hits();
}
