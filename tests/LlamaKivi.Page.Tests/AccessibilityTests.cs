using System.Globalization;
using System.Text.Json;
using Microsoft.Playwright;

namespace LlamaKivi.Page.Tests;

/// <summary>The page by keyboard, for screen readers, in narrow windows and in both colour schemes.</summary>
public sealed class AccessibilityTests(Browser browser)
{
    private static readonly string Script = File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "accessibility.js"));

    [Fact]
    public async Task Everything_can_be_done_by_keyboard()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 6);
        IKeyboard keyboard = page.Page.Keyboard;

        await page.LoadAsync();
        await page.Expect(page.Input).ToBeFocusedAsync();
        string[] before = await TabAsync(page, "Shift+Tab", 3);
        Assert.Equal(["Delete the conversation “New conversation”", "New conversation", "New conversation"], before.Select(name => name.Replace("empty", "", StringComparison.Ordinal)));
        await keyboard.PressAsync("Shift+Tab");
        await page.Expect(page.Page.GetByText("Skip to the message field")).ToBeFocusedAsync();
        await page.Expect(page.Page.GetByText("Skip to the message field")).ToBeInViewportAsync();
        await keyboard.PressAsync("Enter");
        await page.Expect(page.Input).ToBeFocusedAsync();

        await keyboard.TypeAsync("one");
        await keyboard.PressAsync("Shift+Enter");
        await keyboard.TypeAsync("two");
        await page.Expect(page.Input).ToHaveValueAsync("one\ntwo");
        await keyboard.PressAsync("Enter");
        await page.WaitForEndAsync();
        await page.Expect(page.Input).ToBeFocusedAsync();
        await page.Expect(page.Messages.First.Locator(".body")).ToHaveTextAsync("one\ntwo", new LocatorAssertionsToHaveTextOptions { UseInnerText = true });

        // Back through the tools of the answer and of the message.
        string[] tools = await TabAsync(page, "Shift+Tab", 4);
        Assert.Equal(["Copy the answer", "Regenerate the answer", "Copy your message", "Edit your last message"], tools);
        await keyboard.PressAsync("Enter");
        await keyboard.TypeAsync(" three");
        await keyboard.PressAsync("Enter");
        await page.WaitForEndAsync();
        await page.Expect(page.Messages.First.Locator(".body")).ToContainTextAsync("three");
        await page.Expect(page.Input).ToBeFocusedAsync();

        // On through the parameters.
        string[] controls = await TabAsync(page, "Tab", 4);
        Assert.Equal(["Send", "System prompt", "Temperature", "Max tokens"], controls);
        page.AssertQuiet();
    }

    [Theory]
    [InlineData(ColorScheme.Light)]
    [InlineData(ColorScheme.Dark)]
    public async Task Text_has_a_contrast_of_at_least_4_5(ColorScheme scheme)
    {
        await using OpenPage page = await browser.OpenAsync(scheme: scheme);
        await CheckAsync("empty page");
        await page.ScriptAsync(200, """
            data: {"choices":[{"delta":{"reasoning_content":"Thought.","content":"Text\n```\ncode\n```\n"}}]}

            data: {"error":{"message":"It broke."}}


            """);
        await page.SendAsync("Hi");
        await page.Expect(page.Page.GetByRole(AriaRole.Alert)).ToBeVisibleAsync();
        await page.Answer.GetByText("Reasoning").ClickAsync();
        await page.Page.GetByLabel("Temperature").FillAsync("9");
        await CheckAsync("failed answer");
        await page.Button("Edit your last message").HoverAsync();
        await CheckAsync("hovered button");
        await page.Button("Edit your last message").ClickAsync();
        await CheckAsync("edit");

        async Task CheckAsync(string state)
        {
            JsonElement found = await page.Page.EvaluateAsync<JsonElement>(Script + "contrasts()");
            Assert.True(found.GetArrayLength() > 25, $"Only {found.GetArrayLength()} texts were measured.");
            Assert.All(found.EnumerateArray(), text => Assert.True(
                text.GetProperty("ratio").GetDouble() >= 4.5,
                string.Create(CultureInfo.InvariantCulture, $"{state}: “{text.GetProperty("text")}” has {text.GetProperty("ratio").GetDouble():F2} ({text.GetProperty("colors")}).")));
        }
    }

    [Theory]
    [InlineData(360)]
    [InlineData(700)]
    [InlineData(1000)]
    [InlineData(1280)]
    public async Task Nothing_scrolls_sideways(int width)
    {
        await using OpenPage page = await browser.OpenAsync(width, 640);
        string word = new('w', 400);
        await page.ScriptAsync(200, $$$"""
            data: {"choices":[{"delta":{"content":"{{{word}}}\n```\n{{{word}}}\n```\n"}}]}

            data: {"error":{"message":"{{{word}}}"}}


            """);
        await page.SendAsync(word);
        await page.Expect(page.Page.GetByRole(AriaRole.Alert)).ToBeVisibleAsync();
        await CheckAsync();
        foreach (string panel in (string[])["Chats", "Engine"])
        {
            if (await page.Button(panel).IsVisibleAsync())
            {
                await page.Button(panel).ClickAsync();
                await page.Expect(page.Button(panel)).ToHaveAttributeAsync("aria-expanded", "true");
                await CheckAsync();
                await page.Page.Keyboard.PressAsync("Escape");
                await page.Expect(page.Button(panel)).ToHaveAttributeAsync("aria-expanded", "false");
            }
        }

        await page.Button("Edit your last message").ClickAsync();
        await CheckAsync();
        page.AssertQuiet();

        async Task CheckAsync() => Assert.Empty(await page.Page.EvaluateAsync<string[]>(Script + "overflowing()"));
    }

    [Fact]
    public async Task Controls_have_names_and_answers_are_announced_by_the_sentence()
    {
        await using OpenPage page = await browser.OpenAsync();
        Assert.Empty(await page.Page.EvaluateAsync<string[]>(Script + "unnamed()"));
        await page.Page.EvaluateAsync("""
            window.spoken = [];
            new MutationObserver(() => spoken.push(document.getElementById('announcer').textContent)).observe(document.getElementById('announcer'), { childList: true });
            """);
        await page.SetParametersAsync(tokens: 40);
        await page.SendAsync("What is a compiler?");
        await page.WaitForEndAsync();
        Assert.Empty(await page.Page.EvaluateAsync<string[]>(Script + "unnamed()"));
        string[] spoken = await page.Page.EvaluateAsync<string[]>("spoken");
        Assert.Equal("The model is writing.", spoken[0]);
        Assert.EndsWith("Cut off at the token limit.", spoken[^1], StringComparison.Ordinal);
        Assert.InRange(spoken.Length, 2, 20);
        Assert.Equal(
            Words(await page.Answer.Locator(".body").InnerTextAsync()), Words(string.Join(' ', spoken[1..]).Replace("Cut off at the token limit.", "", StringComparison.Ordinal)));
        page.AssertQuiet();
    }

    [Fact]
    public async Task A_frame_drawn_after_the_end_announces_nothing()
    {
        await using OpenPage page = await browser.OpenAsync();
        Assert.Equal("One. Two. End of the answer.", await page.Page.EvaluateAsync<string>("""
            async () => {
              const { Announcer } = await import('/page/announcer.js');
              const element = document.createElement('p');
              const announcer = new Announcer(element);
              announcer.start();
              announcer.finish('One. Two.');
              const now = performance.now();
              performance.now = () => now + 3001;
              announcer.progress('One. Two. ');
              return element.textContent;
            }
            """));
        page.AssertQuiet();
    }

    private static async Task<string[]> TabAsync(OpenPage page, string key, int count)
    {
        var names = new List<string>();
        for (int i = 0; i < count; i++)
        {
            await page.Page.Keyboard.PressAsync(key);
            names.Add(await page.Page.EvaluateAsync<string>("(document.activeElement.getAttribute('aria-label') ?? document.activeElement.labels?.[0]?.firstChild.textContent ?? document.activeElement.textContent).trim()"));
        }

        return [.. names];
    }

    private static string Words(string text) => string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
}
