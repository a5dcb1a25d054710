using LlamaKivi.Common;

namespace LlamaKivi.Evaluation.Tests;

/// <summary>The demo model, loaded once.</summary>
public sealed class DemoModel : IDisposable
{
    public DemoModel() => Weights = LLamaWeights.LoadFromFile(Params());

    public LLamaWeights Weights { get; }

    /// <summary>Token ids of a text of more than 300 tokens.</summary>
    public int[] Tokens => Weights.Tokenizer.Encode(
        string.Concat(Enumerable.Range(0, 40).Select(i => $"{i}. The parser reads a token and hands it to the next stage. ")), addBos: false, parseSpecial: false);

    public static ModelParams Params() => new(Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf")) { GpuLayerCount = 0, Threads = 2 };

    public static NamedKvCache Cache(string type) => new(type, KvCacheParams.Parse(type));

    public void Dispose() => Weights.Dispose();
}

/// <summary>Collects progress reports.</summary>
internal sealed class Reports : IProgress<float>
{
    public List<float> Values { get; } = [];

    public void Report(float value) => Values.Add(value);
}
