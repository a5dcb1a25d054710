using System.Net;
using System.Text;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

// Files that are broken or change.
public sealed partial class ModelFolderTests
{
    [Fact]
    public async Task A_file_that_was_replaced_is_loaded_anew()
    {
        string path = Path.Combine(_folder, "changing.gguf");
        File.CreateSymbolicLink(path, TestServer.ModelPath);
        await using Folder server = await StartAsync();
        Assert.Equal(HttpStatusCode.OK, (await server.AskAsync("changing")).Status);
        File.Delete(path);
        await File.WriteAllTextAsync(path, "no model");
        Assert.Equal(HttpStatusCode.ServiceUnavailable, (await server.AskAsync("changing")).Status);
        Assert.Equal("changing failed, first unloaded, second unloaded, third unloaded", await server.StatesAsync());
        File.Delete(path);
        File.Copy(TestServer.ModelPath, path);
        Assert.Equal(HttpStatusCode.OK, (await server.AskAsync("changing")).Status);
    }

    [Fact]
    public async Task A_broken_file_fails_its_own_requests_alone()
    {
        await File.WriteAllTextAsync(Path.Combine(_folder, "broken.gguf"), "no model");
        await using Folder server = await StartAsync();
        (HttpStatusCode status, JsonElement body) = await server.AskAsync("broken");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, "model_failed"), (status, body.GetProperty("error").GetProperty("code").GetString()));
        Assert.Equal(HttpStatusCode.OK, (await server.AskAsync("first")).Status);
    }

    [Theory]
    [InlineData("no model", "GGUF")]
    [InlineData(null, "bytes")]  // the first half of a model
    public async Task A_broken_file_is_failed_with_its_reason_until_it_changes(string? text, string reason)
    {
        string path = Path.Combine(_folder, "broken.gguf");
        byte[] whole = await File.ReadAllBytesAsync(TestServer.ModelPath);
        await File.WriteAllBytesAsync(path, text is null ? whole[..(whole.Length / 2)] : Encoding.UTF8.GetBytes(text));
        await using Folder server = await StartAsync();
        Assert.Equal("broken unloaded, first unloaded, second unloaded, third unloaded", await server.StatesAsync());
        for (int i = 0; i < 2; i++)
        {
            (HttpStatusCode status, JsonElement body) = await server.AskAsync("broken");
            JsonElement error = body.GetProperty("error");
            Assert.Equal((HttpStatusCode.ServiceUnavailable, "model", "model_failed"), (status, error.GetProperty("param").GetString(), error.GetProperty("code").GetString()));
            AssertReason(error.GetProperty("message").GetString()!);
        }

        Assert.Equal("broken failed, first unloaded, second unloaded, third unloaded", await server.StatesAsync());
        AssertReason(JsonElement.Parse(await server.Http.GetStringAsync("/v1/models/broken")).GetProperty("status").GetProperty("error").GetString()!);
        Assert.Equal("failed", JsonElement.Parse(await server.Http.GetStringAsync("/engine?model=broken")).GetProperty("state").GetString());
        Assert.Equal(HttpStatusCode.OK, (await server.Http.GetAsync("/health")).StatusCode);

        await File.WriteAllBytesAsync(path, whole);
        Assert.StartsWith("broken unloaded", await server.StatesAsync(), StringComparison.Ordinal);
        Assert.Equal(HttpStatusCode.OK, (await server.AskAsync("broken")).Status);
        Assert.StartsWith("broken loaded", await server.StatesAsync(), StringComparison.Ordinal);

        void AssertReason(string message)
        {
            Assert.Contains("broken.gguf", message, StringComparison.Ordinal);
            Assert.Contains(reason, message, StringComparison.Ordinal);
            Assert.DoesNotContain(_folder, message, StringComparison.Ordinal);
        }
    }
}
