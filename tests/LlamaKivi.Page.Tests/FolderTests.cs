using LlamaKivi.Server;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Page.Tests;

/// <summary>The page of a server with several models, none of which is loaded.</summary>
public sealed class FolderTests(Browser browser)
{
    [Fact]
    public async Task A_message_loads_the_chosen_model()
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("llama-kivi-");
        string model = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        foreach (string name in (string[])["first", "second"])
        {
            File.CreateSymbolicLink(Path.Combine(folder.FullName, name + ".gguf"), model);
        }

        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        builder.Services.AddLlamaKiviModels(options =>
        {
            options.Folder = folder.FullName;
            (options.Engine.ContextSize, options.Engine.Threads, options.Engine.GpuLayerCount) = (2048, 2, 0);
        });
        await using WebApplication app = builder.Build();
        app.MapLlamaKivi();
        await app.StartAsync();
        try
        {
            await using OpenPage page = await browser.OpenAsync(address: new Uri(app.Urls.Single()), state: "Not loaded; loads with the next message");
            await page.SetParametersAsync(tokens: 4);
            await page.SendAsync("Hello");
            await page.WaitForEndAsync();
            await page.Expect(page.Page.Locator("#state-text")).ToHaveTextAsync("Ready");
            await page.Page.Locator("#model-choice").SelectOptionAsync("second");
            await page.Expect(page.Page.Locator("#state-text")).ToHaveTextAsync("Not loaded; loads with the next message");
            await page.SendAsync("Hello again");
            await page.WaitForEndAsync();
            await page.Expect(page.Page.Locator("#state-text")).ToHaveTextAsync("Ready");
            page.AssertQuiet();
        }
        finally
        {
            await app.StopAsync();
            folder.Delete(recursive: true);
        }
    }
}
