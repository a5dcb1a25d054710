using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests.Ownership;

/// <summary>A model with one narrow layer, a vocabulary of single bytes and a reranking head. A call takes microseconds, so that tests can run many concurrently.</summary>
public sealed class TinyModel : IDisposable
{
    private const int Width = 32;

    public TinyModel()
    {
        using GgufFile demo = GgufFile.Open(InferenceTests.DemoModel.Path);
        string[] all = demo.GetStrings("tokenizer.ggml.tokens")!;
        string[] tokens = [.. all.Where(token => token.Length == 1), "<s>", "</s>"];
        var writer = new GgufWriter();
        foreach ((string key, object value) in new (string, object)[]
        {
            ("general.architecture", "llama"),
            ("llama.context_length", 4096),
            ("llama.embedding_length", Width),
            ("llama.block_count", 1),
            ("llama.feed_forward_length", Width),
            ("llama.attention.head_count", 1),
            ("llama.attention.head_count_kv", 1),
            ("llama.attention.layer_norm_rms_epsilon", 1e-5f),
            ("tokenizer.ggml.model", "gpt2"),
            ("tokenizer.ggml.pre", demo.GetString("tokenizer.ggml.pre")!),
            ("tokenizer.ggml.tokens", tokens),
            ("tokenizer.ggml.merges", Array.Empty<string>()),
            ("tokenizer.ggml.bos_token_id", tokens.Length - 2),
            ("tokenizer.ggml.eos_token_id", tokens.Length - 1),
        })
        {
            writer.Add(key, value);
        }

        var random = new Random(1);
        float[] Values(long count) => [.. Enumerable.Range(0, (int)count).Select(_ => random.NextSingle() - 0.5f)];
        void AddRandom(string name, params long[] shape) => writer.AddTensor(name, shape, Values(shape.Aggregate(1L, (product, length) => product * length)));

        // Special tokens get logit 0, which is never the largest, so texts do not end.
        writer.AddTensor("token_embd.weight", [Width, tokens.Length], [.. Values((tokens.Length - 2) * Width), .. new float[2 * Width]]);
        AddRandom("output_norm.weight", Width);
        foreach (string name in (string[])["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"])
        {
            AddRandom($"blk.0.{name}.weight", Width, Width);
        }

        AddRandom("blk.0.attn_norm.weight", Width);
        AddRandom("blk.0.ffn_norm.weight", Width);
        AddRandom("cls.output.weight", Width, 1);
        writer.Write(FilePath);
        Weights = LLamaWeights.LoadFromFile(Params());
    }

    public string FilePath { get; } = Path.Combine(Path.GetTempPath(), $"llama-kivi-tiny-{Guid.NewGuid():N}.gguf");

    public LLamaWeights Weights { get; }

    public ModelParams Params(uint size = 512) => new(FilePath) { ContextSize = size, SeqMax = 4, Threads = 1, UBatchSize = 64, KvCache = KvCacheParams.Parse("f16") };

    public static InferenceParams Greedy(int tokens) => new() { MaxTokens = tokens, SamplingPipeline = new GreedySamplingPipeline() };

    public void Dispose()
    {
        Weights.Dispose();
        File.Delete(FilePath);
    }
}
