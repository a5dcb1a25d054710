using System.Diagnostics;
using System.Text.Json;

namespace LlamaKivi.Server.Tests;

public sealed class SampleTests
{
    [Fact]
    public async Task MinimalApi_answers_and_stops_on_SIGTERM()
    {
        using SampleProgram program = await SampleProgram.StartAsync("MinimalApi.dll", ["--LlamaKivi:KvCache=kivi2"]);
        using HttpResponseMessage response = await program.Http.PostAsync("/v1/chat/completions", TestServer.Json("""{"messages":[{"role":"user","content":"Hello"}],"max_tokens":3}"""));
        Assert.Equal(3, JsonElement.Parse(await response.Content.ReadAsStringAsync()).GetProperty("usage").GetProperty("completion_tokens").GetInt32());
        Assert.Equal("kivi2", JsonElement.Parse(await program.Http.GetStringAsync("/engine")).GetProperty("cache_type_k").GetString());
        using Process kill = Process.Start("kill", $"-TERM {program.Process.Id}");
        await program.EndAsync();
        Assert.Equal(0, program.Process.ExitCode);
    }
}
