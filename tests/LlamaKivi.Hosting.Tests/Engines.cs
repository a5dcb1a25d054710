using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting.Tests;

/// <summary>Engines of the demo model, and the texts that they should write.</summary>
internal static class Engines
{
    public static string ModelPath { get; } = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");

    /// <summary>Options of a prefix cache whose copies depend on the requests alone, not on the time that copies take.</summary>
    public static PrefixCacheOptions Prefixes { get; } = new() { MeasuresCopies = false };

    public static InferenceEngineOptions Options(uint contextSize = 2048, uint sequences = 8) =>
        new() { ModelPath = ModelPath, ContextSize = contextSize, SeqMax = sequences, Threads = 2, GpuLayerCount = 0, PrefixCache = Prefixes with { } };

    public static async Task<InferenceEngine> StartAsync(InferenceEngineOptions options)
    {
        var engine = new InferenceEngine(options);
        await engine.StartAsync(CancellationToken.None);
        await engine.WaitUntilReadyAsync();
        return engine;
    }

    public static InferenceParams Greedy(int tokens) => new() { MaxTokens = tokens, SamplingPipeline = new GreedySamplingPipeline() };

    /// <summary>Writes one token until the cache is full.</summary>
    public static InferenceParams Endless() => new()
    {
        MaxTokens = -1,
        SamplingPipeline = new DefaultSamplingPipeline { Temperature = 0, LogitBias = new Dictionary<LLamaToken, float> { [(LLamaToken)5] = 1000 } },
    };

    /// <summary>The text of a request that has begun: its first piece is there.</summary>
    public static async Task<Task<string>> BegunAsync(this InferenceStream stream, CancellationToken cancellationToken = default)
    {
        IAsyncEnumerator<string> pieces = stream.GetAsyncEnumerator(cancellationToken);
        Assert.True(await pieces.MoveNextAsync());
        return RestAsync(pieces);
    }

    private static async Task<string> RestAsync(IAsyncEnumerator<string> pieces)
    {
        await using (pieces)
        {
            string text = pieces.Current;
            while (await pieces.MoveNextAsync())
            {
                text += pieces.Current;
            }

            return text;
        }
    }

    public static async Task<string> TextAsync(this InferenceStream stream, CancellationToken cancellationToken = default)
    {
        string text = "";
        await foreach (string piece in stream.WithCancellation(cancellationToken))
        {
            text += piece;
        }

        return text;
    }

    /// <summary>The text of a request that runs alone.</summary>
    public static async Task<string> AloneAsync(string prompt, int tokens)
    {
        using InferenceEngine engine = await StartAsync(Options() with { PrefixCache = new PrefixCacheOptions { Enabled = false } });
        string text = await engine.InferAsync(prompt, Greedy(tokens)).TextAsync();
        await engine.StopAsync(CancellationToken.None);
        return text;
    }
}
