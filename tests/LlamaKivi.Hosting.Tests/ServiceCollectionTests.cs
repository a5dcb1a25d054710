using Microsoft.Extensions.AI;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;

namespace LlamaKivi.Hosting.Tests;

public sealed class ServiceCollectionTests
{
    [Fact]
    public async Task An_engine_and_its_chat_client_come_from_configuration()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?>
        {
            ["LlamaKivi:ModelPath"] = Engines.ModelPath,
            ["LlamaKivi:ContextSize"] = "1024",
            ["LlamaKivi:SeqMax"] = "3",
            ["LlamaKivi:KvCache"] = "kivi2",
            ["LlamaKivi:PrefixCache:MaxEntries"] = "5",
        });
        builder.Services.AddLlamaKivi(builder.Configuration.GetSection("LlamaKivi"));
        using IHost host = builder.Build();
        await host.StartAsync();
        InferenceEngineOptions options = host.Services.GetRequiredService<IOptions<InferenceEngineOptions>>().Value;
        Assert.Equal(Common.KvCacheParams.Parse("kivi2"), options.KvCache);
        Assert.Equal((3u, 5), (options.SeqMax, options.PrefixCache.MaxEntries));
        IChatClient client = host.Services.GetRequiredService<IChatClient>();
        ChatResponse response = await client.GetResponseAsync("Hello", new ChatOptions { MaxOutputTokens = 8 });
        Assert.NotEmpty(response.Text);
        Assert.Same(host.Services.GetRequiredService<InferenceEngine>(), client.GetService(typeof(InferenceEngine)));
        await host.StopAsync();
    }

    [Fact]
    public async Task Two_models_have_keys()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddKeyedLlamaKivi("small", options => Set(options, 512));
        builder.Services.AddKeyedLlamaKivi("large", options => Set(options, 1024));
        using IHost host = builder.Build();
        await host.StartAsync();
        var engines = new[] { "small", "large" }.Select(key => host.Services.GetRequiredKeyedService<InferenceEngine>(key)).ToArray();
        await Task.WhenAll(engines.Select(engine => engine.WaitUntilReadyAsync()));
        Assert.Equal([512L, 1024L], engines.Select(engine => engine.Status.CacheCapacity));
        Assert.NotEmpty((await host.Services.GetRequiredKeyedService<IChatClient>("small").GetResponseAsync("Hello", new ChatOptions { MaxOutputTokens = 4 })).Text);
        await host.StopAsync();
    }

    [Theory]
    [InlineData("ModelPath", "", "Engines:Main:ModelPath is not set")]
    [InlineData("ModelPath", "/no/such/file.gguf", "Engines:Main:ModelPath is '/no/such/file.gguf', which does not exist")]
    [InlineData("SeqMax", "0", "Engines:Main:SeqMax is 0")]
    [InlineData("ContextSize", "1", "Engines:Main:ContextSize is 1, which holds no token of an answer; it must be 2 or more")]
    [InlineData("Watermark", "1.5", "Engines:Main:Watermark is 1.5")]
    [InlineData("PrefixCache:MaxShare", "-1", "Engines:Main:PrefixCache:MaxShare is -1")]
    public async Task Wrong_options_stop_the_host_with_the_path(string key, string value, string message)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?> { ["Engines:Main:ModelPath"] = Engines.ModelPath, [$"Engines:Main:{key}"] = value });
        builder.Services.AddLlamaKivi(builder.Configuration.GetSection("Engines:Main"));
        using IHost host = builder.Build();
        OptionsValidationException error = await Assert.ThrowsAsync<OptionsValidationException>(() => host.StartAsync());
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Group", "48", "'LlamaKivi:Models:a:KvCache:Group' is 48; it must be 16, 32, 64 or 128")]
    [InlineData("Residual", "65537", "'LlamaKivi:Models:a:KvCache:Residual' is 65537; it must be 1 to 65536")]
    [InlineData("TypeK", "kivi9", "'LlamaKivi:Models:a:KvCache:TypeK' is 'kivi9'; KV cache types are f16")]
    public async Task Wrong_settings_of_the_cache_stop_the_host_with_the_whole_path(string key, string value, string message)
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?> { ["LlamaKivi:Models:a:ModelPath"] = Engines.ModelPath, [$"LlamaKivi:Models:a:KvCache:{key}"] = value });
        builder.Services.AddKeyedLlamaKivi("a", builder.Configuration.GetSection("LlamaKivi:Models:a"));
        using IHost host = builder.Build();
        Exception error = await Assert.ThrowsAnyAsync<Exception>(() => host.StartAsync());
        Assert.Contains(message, error.ToString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Wrong_settings_of_the_cache_in_code_stop_the_host()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddLlamaKivi(options => (options.ModelPath, options.KvCache) = (Engines.ModelPath, Common.KvCacheParams.Parse("f16") with { Group = 64 }));
        using IHost host = builder.Build();
        OptionsValidationException error = await Assert.ThrowsAsync<OptionsValidationException>(() => host.StartAsync());
        Assert.Contains("KvCache:Group is 64, which only KIVI types use; the cache is f16", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Decorated_clients_and_embeddings_run_on_the_engine()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddLlamaKivi(options => Set(options, 2048));
        builder.Services.AddDistributedMemoryCache();
        using IHost host = builder.Build();
        await host.StartAsync();
        var activities = new List<System.Diagnostics.Activity>();
        using var listener = new System.Diagnostics.ActivityListener
        {
            ShouldListenTo = source => source.Name == "LlamaKivi.Hosting.Tests.Decorated",
            Sample = (ref System.Diagnostics.ActivityCreationOptions<System.Diagnostics.ActivityContext> _) => System.Diagnostics.ActivitySamplingResult.AllData,
            ActivityStopped = activities.Add,
        };
        System.Diagnostics.ActivitySource.AddActivityListener(listener);
        IChatClient client = host.Services.GetRequiredService<IChatClient>().AsBuilder()
            .UseDistributedCache(host.Services.GetRequiredService<Microsoft.Extensions.Caching.Distributed.IDistributedCache>())
            .UseFunctionInvocation()
            .UseOpenTelemetry(sourceName: "LlamaKivi.Hosting.Tests.Decorated")
            .UseLogging(Microsoft.Extensions.Logging.Abstractions.NullLoggerFactory.Instance)
            .Build();
        var options = new ChatOptions { MaxOutputTokens = 8, Temperature = 0, Seed = 1, Tools = [AIFunctionFactory.Create(() => 21, "temperature", "The temperature outside")], ToolMode = ChatToolMode.None };
        ChatResponse first = await client.GetResponseAsync("Hello", options);
        ChatResponse second = await client.GetResponseAsync("Hello", options);
        Assert.NotEmpty(first.Text);
        Assert.Equal(first.Text, second.Text);
        Assert.Equal(first.ResponseId, second.ResponseId);  // from the cache
        Assert.Single(activities, activity => activity.GetTagItem("gen_ai.operation.name") is "chat");

        IEmbeddingGenerator<string, Embedding<float>> embeddings = host.Services.GetRequiredService<IEmbeddingGenerator<string, Embedding<float>>>();
        GeneratedEmbeddings<Embedding<float>>[] vectors = await Task.WhenAll(Enumerable.Range(0, 4).Select(i => embeddings.GenerateAsync(["a cat", $"text {i}"])));
        Assert.All(vectors, pair => Assert.Equal(vectors[0][0].Vector.ToArray(), pair[0].Vector.ToArray()));
        Assert.Equal(host.Services.GetRequiredService<InferenceEngine>().ModelName, embeddings.GetService<EmbeddingGeneratorMetadata>()!.DefaultModelId);
        Exception noReranker = await Assert.ThrowsAnyAsync<Exception>(() => host.Services.GetRequiredService<EngineReranker>().GetRelevanceScores("cat", ["a cat"]));
        Assert.Contains("reranker", noReranker.Message, StringComparison.Ordinal);
        await host.StopAsync();
        await Assert.ThrowsAsync<EngineBusyException>(() => embeddings.GenerateAsync(["late"]));
    }

    private static void Set(InferenceEngineOptions options, uint contextSize) =>
        (options.ModelPath, options.ContextSize, options.GpuLayerCount) = (Engines.ModelPath, contextSize, 0);
}
