using System.Net;
using System.Text.Json;
using LlamaKivi.Common;

namespace LlamaKivi.Server.Tests;

public sealed class SlotTests : IDisposable
{
    private const string Prompt = "one two three four five six seven eight nine ten eleven";

    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_saved_conversation_continues_after_a_restart()
    {
        string text;
        int saved;
        await using (TestServer first = await StartAsync())
        {
            text = (await CompleteAsync(first, Prompt, 3)).Text;
            JsonElement slot = await ListIdleAsync(first, 3);
            JsonElement view = await ActAsync(first, 3, "save", """{"filename":"talk.bin"}""");
            saved = view.GetProperty("n_saved").GetInt32();
            Assert.Equal((3, "talk.bin"), (view.GetProperty("id_slot").GetInt32(), view.GetProperty("filename").GetString()));
            Assert.Equal(new FileInfo(Path.Combine(_folder, "talk.bin")).Length, view.GetProperty("n_written").GetInt64());
            Assert.Equal(slot.GetProperty("n_tokens").GetInt32(), saved);
            Assert.True(view.GetProperty("timings").GetProperty("save_ms").GetDouble() > 0);
        }

        await using TestServer second = await StartAsync();
        (string expected, int cached) = await CompleteAsync(second, Prompt + text + " and then", 0);
        Assert.Equal(0, cached);
        Assert.True((await ActAsync(second, 0, "erase", null)).GetProperty("n_erased").GetInt32() > saved);
        JsonElement restored = await ActAsync(second, 5, "restore", """{"filename":"talk.bin"}""");
        Assert.Equal(saved, restored.GetProperty("n_restored").GetInt32());
        Assert.Equal(saved, (await ListAsync(second, 5)).GetProperty("n_tokens").GetInt32());
        (string continued, cached) = await CompleteAsync(second, Prompt + text + " and then", null);
        Assert.InRange(cached, saved - 1, saved);  // the text's last token may be cut differently when it is continued
        Assert.Equal(expected, continued);
    }

    [Fact]
    public async Task An_erased_conversation_is_read_again()
    {
        await using TestServer server = await StartAsync();
        string text = (await CompleteAsync(server, Prompt, 1)).Text;
        string longer = Prompt + text + " twelve";
        Assert.True((await CompleteAsync(server, longer, 1)).Cached > 5);
        int tokens = (await ListIdleAsync(server, 1)).GetProperty("n_tokens").GetInt32();
        Assert.Equal(tokens, (await ActAsync(server, 1, "erase", null)).GetProperty("n_erased").GetInt32());
        Assert.Equal(0, (await ListAsync(server, 1)).GetProperty("n_tokens").GetInt32());
        Assert.Equal(0, (await ActAsync(server, 1, "erase", null)).GetProperty("n_erased").GetInt32());
        await RefusedAsync(server, "/slots/1?action=save", """{"filename":"none"}""", "slot_empty", "Slot 1 has no conversation");
        Assert.Equal(0, (await CompleteAsync(server, longer, 2)).Cached);
    }

    [Fact]
    public async Task Saving_waits_for_the_request_of_the_slot()
    {
        await using TestServer server = await StartAsync();
        Task<(string, int)> running = CompleteAsync(server, Prompt, 4, tokens: 60);
        while (!(await ListAsync(server, 4)).GetProperty("is_processing").GetBoolean() && !running.IsCompleted)
        {
        }

        JsonElement view = await ActAsync(server, 4, "save", """{"filename":"busy"}""");
        Assert.True(view.GetProperty("n_saved").GetInt32() >= 60, view.ToString());
        await running;
    }

    [Theory]
    [InlineData("../outside")]
    [InlineData("a/b")]
    [InlineData("a\\\\b")]
    [InlineData("..")]
    [InlineData(".hidden")]
    [InlineData("")]
    [InlineData("/tmp/absolute")]
    [InlineData("C:name")]
    [InlineData("nul\\u0000")]
    [InlineData("name ")]
    public async Task A_name_that_leaves_the_folder_is_refused(string name)
    {
        await using TestServer server = await StartAsync();
        await CompleteAsync(server, Prompt, 0);
        foreach (string action in (string[])["save", "restore"])
        {
            await RefusedAsync(server, $"/slots/0?action={action}", $$"""{"filename":"{{name}}"}""", "invalid_value", "filename is not the name of a file");
        }

        Assert.Empty(Directory.GetFileSystemEntries(_folder));
    }

    [Fact]
    public async Task Files_that_are_no_state_of_this_model_are_refused()
    {
        await using TestServer server = await StartAsync();
        await CompleteAsync(server, Prompt, 0);
        await ActAsync(server, 0, "save", """{"filename":"good"}""");
        string good = Path.Combine(_folder, "good");
        byte[] bytes = await File.ReadAllBytesAsync(good);
        bytes[bytes.Length / 2] ^= 1;
        await File.WriteAllBytesAsync(Path.Combine(_folder, "damaged"), bytes);
        await File.WriteAllTextAsync(Path.Combine(_folder, "text"), "no state");
        await RefusedAsync(server, "/slots/0?action=restore", """{"filename":"damaged"}""", "slot_not_restored", "its checksum differs");
        await RefusedAsync(server, "/slots/0?action=restore", """{"filename":"text"}""", "slot_not_restored", "it is no prefix");
        await RefusedAsync(server, "/slots/0?action=restore", """{"filename":"missing"}""", "file_not_found", "no file 'missing'", HttpStatusCode.NotFound);
        await RefusedAsync(server, "/slots/8?action=restore", """{"filename":"good"}""", "invalid_value", "slots are 0 to 7");
        await RefusedAsync(server, "/slots/0?action=move", """{"filename":"good"}""", "invalid_value", "save, restore or erase");
        if (!OperatingSystem.IsWindows())
        {
            File.CreateSymbolicLink(Path.Combine(_folder, "link"), good);
            await RefusedAsync(server, "/slots/0?action=restore", """{"filename":"link"}""", "slot_not_restored", "it is a link");
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(good));
        }

        await using TestServer other = await TestServer.StartAsync(options => options.SlotSavePath = _folder, engine => engine.KvCache = KvCacheParams.Parse("q8_0"));
        await RefusedAsync(other, "/slots/0?action=restore", """{"filename":"good"}""", "slot_not_restored", "other settings");
    }

    [Fact]
    public async Task Slots_are_not_saved_without_a_folder()
    {
        await using TestServer server = await TestServer.StartAsync();
        foreach (string action in (string[])["save", "restore", "erase"])
        {
            await RefusedAsync(server, $"/slots/0?action={action}", """{"filename":"a"}""", "not_supported", "--slot-save-path", HttpStatusCode.NotImplemented);
        }

        Assert.Equal(8, JsonElement.Parse(await server.Http.GetStringAsync("/slots")).GetArrayLength());
        var error = Assert.Throws<ArgumentException>(() => new LlamaKiviServerOptions { SlotSavePath = Path.Combine(_folder, "none") }.Validate());
        Assert.Contains("SlotSavePath", error.Message, StringComparison.Ordinal);
    }

    private Task<TestServer> StartAsync() => TestServer.StartAsync(options => options.SlotSavePath = _folder);

    private static async Task<(string Text, int Cached)> CompleteAsync(TestServer server, string prompt, int? slot, int tokens = 12)
    {
        (HttpStatusCode status, JsonElement body, _) = await server.PostAsync(
            "/v1/completions", $$"""{"prompt":{{JsonSerializer.Serialize(prompt)}},"max_tokens":{{tokens}},"temperature":0,"logit_bias":{"2":-100},"id_slot":{{slot ?? -1}}}""");
        Assert.True(status == HttpStatusCode.OK, body.ToString());
        return (body.GetProperty("choices")[0].GetProperty("text").GetString()!, body.GetProperty("usage").GetProperty("prompt_tokens_details").GetProperty("cached_tokens").GetInt32());
    }

    private static async Task<JsonElement> ListAsync(TestServer server, int slot) => JsonElement.Parse(await server.Http.GetStringAsync("/slots"))[slot];

    // An answer ends shortly before its slot is free.
    private static async Task<JsonElement> ListIdleAsync(TestServer server, int slot)
    {
        await server.IdleAsync();
        return await ListAsync(server, slot);
    }

    private static async Task<JsonElement> ActAsync(TestServer server, int slot, string action, string? body)
    {
        using HttpResponseMessage response = await server.Http.PostAsync($"/slots/{slot}?action={action}", body is null ? null : TestServer.Json(body));
        string text = await response.Content.ReadAsStringAsync();
        Assert.True(response.StatusCode == HttpStatusCode.OK, text);
        return JsonElement.Parse(text);
    }

    private static async Task RefusedAsync(TestServer server, string path, string json, string code, string message, HttpStatusCode status = HttpStatusCode.BadRequest)
    {
        (HttpStatusCode given, JsonElement body, _) = await server.PostAsync(path, json);
        JsonElement error = body.GetProperty("error");
        Assert.Equal((status, code), (given, error.GetProperty("code").GetString()));
        Assert.Contains(message, error.GetProperty("message").GetString(), StringComparison.Ordinal);
    }
}
