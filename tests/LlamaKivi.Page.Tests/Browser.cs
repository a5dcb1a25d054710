using System.Text.RegularExpressions;
using LlamaKivi.Page.Tests;
using Microsoft.Playwright;

// The tests share one engine, whose figures some of them compare.
[assembly: AssemblyFixture(typeof(Browser))]
[assembly: Xunit.v3.Parallelization(Mode = Xunit.Sdk.ParallelMode.None)]

namespace LlamaKivi.Page.Tests;

/// <summary>Headless Chromium of the system (Debian's package, or the program that LLAMA_KIVI_CHROMIUM names), and the server whose page it opens.</summary>
public sealed class Browser : IAsyncLifetime
{
    private static readonly string? Executable = ((string?[])[Environment.GetEnvironmentVariable("LLAMA_KIVI_CHROMIUM"), "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"])
        .FirstOrDefault(File.Exists);

    private IPlaywright? _playwright;
    private IBrowser? _browser;

    public PageServer Server { get; } = new();

    public async ValueTask InitializeAsync()
    {
        await Server.InitializeAsync();
        if (Executable is not null)
        {
            Assertions.SetDefaultExpectTimeout(60000);
            _playwright = await Playwright.CreateAsync();
            _browser = await _playwright.Chromium.LaunchAsync(new BrowserTypeLaunchOptions { ExecutablePath = Executable });
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_browser is not null)
        {
            await _browser.DisposeAsync();
        }

        _playwright?.Dispose();
        await Server.DisposeAsync();
    }

    /// <summary>Opens the page in a context of its own: no storage is shared.</summary>
    /// <param name="width">Width of the window.</param>
    /// <param name="height">Height of the window.</param>
    /// <param name="scheme">Light or dark.</param>
    /// <param name="address">Address of the server; null: the shared one.</param>
    /// <param name="state">State that the page shows when it is loaded.</param>
    internal async Task<OpenPage> OpenAsync(int width = 1280, int height = 800, ColorScheme scheme = ColorScheme.Light, Uri? address = null, string state = "Ready")
    {
        Assert.SkipWhen(_browser is null, "No Chromium: install Debian's package (apt-get install chromium), or set LLAMA_KIVI_CHROMIUM to a program.");
        IBrowserContext context = await _browser.NewContextAsync(new BrowserNewContextOptions
        {
            ViewportSize = new ViewportSize { Width = width, Height = height },
            ColorScheme = scheme,
            ReducedMotion = ReducedMotion.Reduce,
            Permissions = ["clipboard-read", "clipboard-write"],
        });
        var page = new OpenPage(context, await context.NewPageAsync(), address ?? Server.Address);
        await page.LoadAsync(state);
        return page;
    }
}

/// <summary>The page in a browser, with what it complained of and which hosts it called.</summary>
internal sealed partial class OpenPage : IAsyncDisposable
{
    private readonly IBrowserContext _context;
    private readonly Uri _address;
    private readonly List<string> _problems = [];
    private readonly List<string> _requests = [];

    public OpenPage(IBrowserContext context, IPage page, Uri address)
    {
        _context = context;
        _address = address;
        Page = page;
        page.SetDefaultTimeout(60000);
        page.Console += (_, message) => Add(_problems, message.Type is "error" or "warning" ? $"{message.Type}: {message.Text}" : null);
        page.PageError += (_, error) => Add(_problems, error);
        context.Request += (_, request) => Add(_requests, request.Url);
    }

    public IPage Page { get; }

    public ILocator Input => Page.GetByRole(AriaRole.Textbox, new PageGetByRoleOptions { Name = "Message", Exact = true });

    public ILocator Messages => Page.Locator(".message");

    public ILocator Answer => Page.Locator(".message.assistant").Last;

    public IReadOnlyList<string> Requests => Copy(_requests);

    public ILocator Button(string name) => Page.GetByRole(AriaRole.Button, new PageGetByRoleOptions { Name = name, Exact = true });

    public ILocatorAssertions Expect(ILocator locator) => Assertions.Expect(locator);

    public async Task LoadAsync(string state = "Ready")
    {
        await Page.GotoAsync(_address.ToString());
        await Expect(Page.Locator("#state-text")).ToHaveTextAsync(state, new LocatorAssertionsToHaveTextOptions { Timeout = 60000 });
    }

    /// <summary>Sets parameters under which a text is the same each time.</summary>
    public async Task SetParametersAsync(int tokens, string system = "")
    {
        await Page.GetByLabel("System prompt").FillAsync(system);
        await Page.GetByLabel("Temperature").FillAsync("0");
        await Page.GetByLabel("Max tokens").FillAsync($"{tokens}");
        await Input.FocusAsync();
    }

    /// <summary>Sends a message by keyboard.</summary>
    public async Task SendAsync(string text)
    {
        await Input.FillAsync(text);
        await Input.PressAsync("Enter");
    }

    /// <summary>Waits until the answer has a letter.</summary>
    public Task WaitForTextAsync() => Expect(Answer.Locator(".body")).ToContainTextAsync(Letter(), new LocatorAssertionsToContainTextOptions { Timeout = 60000 });

    public async Task WaitForEndAsync() =>
        await Expect(Button("Stop")).ToBeHiddenAsync(new LocatorAssertionsToBeHiddenOptions { Timeout = 180000 });

    /// <summary>Serves answers of a script in place of the model's.</summary>
    public Task ScriptAsync(int status, string body, string contentType = "text/event-stream", params (string Name, string Value)[] headers) =>
        Page.RouteAsync("**/v1/chat/completions", route => route.FulfillAsync(new RouteFulfillOptions
        {
            Status = status,
            Body = body,
            Headers = headers.Append(("Content-Type", contentType)).ToDictionary(header => header.Item1, header => header.Item2, StringComparer.Ordinal),
        }));

    /// <summary>Fails where the console has an error, or a request left the server.</summary>
    /// <param name="expected">Text of the console messages that the test provoked.</param>
    public void AssertQuiet(string? expected = null)
    {
        string[] problems = Array.FindAll(Copy(_problems), problem => expected is null || !problem.Contains(expected, StringComparison.Ordinal));
        Assert.Empty(problems);
        Assert.All(Copy(_requests), request => Assert.Equal(_address.Authority, new Uri(request).Authority));
    }

    public async ValueTask DisposeAsync() => await _context.DisposeAsync();

    [GeneratedRegex("[a-zA-Z]", RegexOptions.None, Timeout.Infinite)]
    private static partial Regex Letter();

    private static void Add(List<string> list, string? text)
    {
        lock (list)
        {
            if (text is not null)
            {
                list.Add(text);
            }
        }
    }

    private static string[] Copy(List<string> list)
    {
        lock (list)
        {
            return [.. list];
        }
    }
}
