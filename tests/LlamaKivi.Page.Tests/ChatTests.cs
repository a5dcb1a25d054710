using System.Globalization;
using Microsoft.Playwright;

namespace LlamaKivi.Page.Tests;

/// <summary>Conversations: streaming, stop, edit, regenerate, copy, tabs' storage, errors.</summary>
public sealed class ChatTests(Browser browser)
{
    private const string Question = "What is a compiler?";

    [Fact]
    public async Task A_message_gets_the_text_that_the_api_gives()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 24, system: "You are brief.");
        await page.SendAsync(Question);
        await page.WaitForEndAsync();

        string expected = await browser.Server.AnswerAsync(new
        {
            messages = new[] { new { role = "system", content = "You are brief." }, new { role = "user", content = Question } },
            temperature = 0,
            max_tokens = 24,
        });
        Assert.NotEqual("", expected.Trim());
        Assert.Equal(Words(expected), Words(await page.Answer.Locator(".body").InnerTextAsync()));
        await page.Expect(page.Answer.Locator(".note")).ToContainTextAsync("Cut off at the token limit · 24 tokens");
        await page.Expect(page.Input).ToHaveValueAsync("");
        page.AssertQuiet();
    }

    [Fact]
    public async Task Text_appears_while_the_model_writes_and_escape_stops_it_within_a_step()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 3000);
        await page.SendAsync("Tell a long story.");
        await page.WaitForTextAsync();
        await page.Expect(page.Button("Stop")).ToBeVisibleAsync();
        Assert.True(browser.Server.Engine.Status.Running >= 1, "The text arrived only after its request had ended.");
        await page.Page.Keyboard.PressAsync("Escape");
        await page.WaitForEndAsync();
        await page.Expect(page.Answer.Locator(".note")).ToContainTextAsync("Stopped");
        string text = await page.Answer.Locator(".body").InnerTextAsync();
        await browser.Server.IdleAsync();
        Assert.Equal(text, await page.Answer.Locator(".body").InnerTextAsync());
        page.AssertQuiet();
    }

    [Fact]
    public async Task The_last_message_can_be_edited_and_its_answer_regenerated()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 8);
        await page.SendAsync(Question);
        await page.WaitForEndAsync();
        string first = await page.Answer.Locator(".body").InnerTextAsync();

        await page.Button("Regenerate the answer").ClickAsync();
        await page.WaitForEndAsync();
        await page.Expect(page.Messages).ToHaveCountAsync(2);
        Assert.Equal(first, await page.Answer.Locator(".body").InnerTextAsync());

        await page.Button("Edit your last message").ClickAsync();
        ILocator field = page.Page.GetByRole(AriaRole.Textbox, new PageGetByRoleOptions { Name = "Your last message" });
        await page.Expect(field).ToBeFocusedAsync();
        await page.Expect(field).ToHaveValueAsync(Question);
        await field.PressAsync("Escape");
        await page.Expect(page.Messages.First.Locator(".body")).ToHaveTextAsync(Question);

        await page.Button("Edit your last message").ClickAsync();
        await field.FillAsync("What is a linker?");
        await field.PressAsync("Enter");
        await page.WaitForEndAsync();
        await page.Expect(page.Messages).ToHaveCountAsync(2);
        await page.Expect(page.Messages.First.Locator(".body")).ToHaveTextAsync("What is a linker?");

        await page.Button("Copy your message").ClickAsync();
        Assert.Equal("What is a linker?", await page.Page.EvaluateAsync<string>("navigator.clipboard.readText()"));
        page.AssertQuiet();
    }

    [Fact]
    public async Task Conversations_stream_at_once_and_survive_a_reload()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 3500);
        await page.SendAsync("Tell a story about a dog.");
        await page.WaitForTextAsync();
        await page.Button("New conversation").ClickAsync();
        await page.SendAsync("Tell a story about a cat.");
        await page.WaitForTextAsync();
        Assert.True(browser.Server.Engine.Status.Running >= 2, $"{browser.Server.Engine.Status.Running} requests run.");

        await page.LoadAsync();
        ILocator chats = page.Page.Locator("#chat-list .chat-title");
        await page.Expect(chats).ToHaveTextAsync(["Tell a story about a cat.", "Tell a story about a dog."]);
        await page.Expect(page.Messages).ToHaveCountAsync(2);
        await page.Expect(page.Answer.Locator(".note")).ToContainTextAsync("The answer is incomplete");
        await page.Expect(page.Page.GetByRole(AriaRole.Alert)).ToContainTextAsync("The page was reloaded during the answer.");
        await page.Expect(page.Page.GetByLabel("Max tokens")).ToHaveValueAsync("3500");

        await page.Button("Delete the conversation “Tell a story about a cat.”").ClickAsync();
        await page.Expect(chats).ToHaveTextAsync(["Tell a story about a dog."]);
        await page.Expect(page.Messages.First.Locator(".body")).ToHaveTextAsync("Tell a story about a dog.");
        page.AssertQuiet();
    }

    [Fact]
    public async Task Text_of_the_model_is_never_markup()
    {
        const string hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>&amp; **bold**";
        await using OpenPage page = await browser.OpenAsync();
        await page.ScriptAsync(200, $$$"""
            data: {"choices":[{"delta":{"reasoning_content":"<b>think</b>"}}]}

            data: {"choices":[{"delta":{"content":{{{System.Text.Json.JsonSerializer.Serialize(hostile)}}}}}]}

            data: {"choices":[{"delta":{"content":"\n```html\n<i>code</i>\n```\nafter"},"finish_reason":"stop"}]}

            data: [DONE]


            """);
        await page.SendAsync(hostile);
        await page.WaitForEndAsync();
        await page.Expect(page.Answer.Locator(".body > .text").First).ToHaveTextAsync(hostile);
        await page.Expect(page.Answer.Locator("pre")).ToHaveTextAsync("<i>code</i>");
        await page.Expect(page.Answer.Locator(".body > .text").Last).ToHaveTextAsync("after");
        await page.Answer.GetByText("Reasoning").ClickAsync();
        await page.Expect(page.Answer.Locator(".reasoning .text")).ToHaveTextAsync("<b>think</b>");
        await page.Expect(page.Messages.First.Locator(".body")).ToHaveTextAsync(hostile);
        Assert.Equal(0, await page.Page.Locator("main img, main script, main i, main b").CountAsync());
        Assert.Equal("LlamaKivi", await page.Page.TitleAsync());
        page.AssertQuiet();
    }

    [Fact]
    public async Task Events_are_read_whatever_ends_their_lines()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.ScriptAsync(200, ": comment\r\ndata: {\"choices\":[{\"delta\":\r\ndata: {\"content\":\"one \"}}]}\r\n\r\nevent: x\rdata:{\"choices\":[{\"delta\":{\"content\":\"two\"}}]}\r\rdata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}");
        await page.SendAsync("Hi");
        await page.WaitForEndAsync();
        await page.Expect(page.Answer.Locator(".body")).ToHaveTextAsync("one two");
        await page.Expect(page.Page.Locator("#problem")).ToBeHiddenAsync();
        page.AssertQuiet();
    }

    [Theory]
    [InlineData(429, "{\"error\":{\"message\":\"8 requests are waiting.\"}}", "8 requests are waiting. Try again in 3 s.")]
    [InlineData(401, "{\"error\":{\"message\":\"x\"}}", "The server asks for an API key. Enter it under Parameters, then try again.")]
    [InlineData(502, "<html>Bad gateway</html>", "The server answered 502 Bad Gateway.")]
    public async Task A_refusal_says_what_to_do_and_keeps_the_message(int status, string body, string expected)
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.ScriptAsync(status, body, "application/json", status == 429 ? [("Retry-After", "3")] : []);
        await page.SendAsync("Hi");
        await page.Expect(page.Page.GetByRole(AriaRole.Alert)).ToContainTextAsync(expected);
        await page.Expect(page.Messages).ToHaveCountAsync(1);

        await page.Page.UnrouteAllAsync();
        await page.SetParametersAsync(tokens: 4);
        await page.Button("Try again").ClickAsync();
        await page.WaitForEndAsync();
        await page.Expect(page.Messages).ToHaveCountAsync(2);
        await page.Expect(page.Page.Locator("#problem")).ToBeHiddenAsync();
        page.AssertQuiet(expected: status.ToString(CultureInfo.InvariantCulture));
    }

    [Theory]
    [InlineData("data: {\"choices\":[{\"delta\":{\"content\":\"Half\"}}]}\n\n", "The connection ended before the answer did.")]
    [InlineData("data: {\"choices\":[{\"delta\":{\"content\":\"Half\"}}]}\n\ndata: {\"error\":{\"message\":\"The engine is stopping.\"}}\n\n", "The engine is stopping.")]
    public async Task An_answer_that_breaks_off_keeps_its_text(string body, string expected)
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.ScriptAsync(200, body);
        await page.SendAsync("Hi");
        await page.Expect(page.Page.GetByRole(AriaRole.Alert)).ToContainTextAsync(expected);
        await page.Expect(page.Answer.Locator(".body")).ToHaveTextAsync("Half");
        await page.Expect(page.Answer.Locator(".note")).ToHaveTextAsync("The answer is incomplete");
        page.AssertQuiet();
    }

    [Fact]
    public async Task Parameters_go_into_the_request_and_bad_ones_are_named()
    {
        await using OpenPage page = await browser.OpenAsync();
        await page.SetParametersAsync(tokens: 5, system: "Be kind.");
        await page.Page.GetByLabel("Seed").FillAsync("7");
        await page.Page.GetByLabel("API key").FillAsync("secret");
        await page.Page.GetByLabel("Temperature").FillAsync("3");
        await page.Expect(page.Page.Locator("#parameter-problem")).ToContainTextAsync("Temperature: ");
        await page.Page.GetByLabel("Temperature").FillAsync("0.5");
        await page.Expect(page.Page.Locator("#parameter-problem")).ToBeEmptyAsync();

        IRequest request = await page.Page.RunAndWaitForRequestAsync(() => page.SendAsync("Hi"), "**/v1/chat/completions");
        Assert.Equal(
            """{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}],"temperature":0.5,"max_tokens":5,"seed":7,"stream":true,"stream_options":{"include_usage":true}}""",
            request.PostData);
        Assert.Equal("Bearer secret", await request.HeaderValueAsync("Authorization"));
        await page.WaitForEndAsync();
        page.AssertQuiet();
    }

    private static string Words(string text) => string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));
}
