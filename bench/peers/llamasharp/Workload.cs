#if LLAMASHARP
using LLama;
using LLama.Batched;
using LLama.Common;
using LLama.Native;
using LLama.Sampling;

namespace PeerBenchmark.OnLLamaSharp;
#else
using LlamaKivi;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace PeerBenchmark.OnLlamaKivi;
#endif

/// <summary>The same program on either library: two threads, batches of 512, greedy sampling.</summary>
public sealed class Workload : IWorkload
{
    private const int Threads = 2;
    private const int Answer = 128;
    private const int TextCount = 8;

    private static readonly string[] Texts = [.. Enumerable.Range(0, TextCount).Select(i =>
        $"Text {i}: the garbage collector of a runtime frees what no reference reaches any more, so that a program need not say when an object is no longer of use to it.")];

    private readonly string _model;
    private readonly string _cache;
    private readonly GreedySamplingPipeline _sampling = new();
    private readonly LLamaToken[] _tokens;
    private readonly LLamaWeights _weights;
    private LLamaContext? _context;
    private LLamaEmbedder? _embedder;
    private int _depth;

    /// <summary>Loads the model.</summary>
    /// <param name="model">Path of the GGUF file.</param>
    /// <param name="cache">Type of the KV cache; LLamaSharp's is f16.</param>
    public Workload(string model, string cache)
    {
        (_model, _cache) = (model, cache);
#if LLAMASHARP
        NativeLibraryConfig.All.WithLogCallback((_, _) => { });
#endif
        _weights = LLamaWeights.LoadFromFile(Parameters(512));
        using LLamaContext context = _weights.CreateContext(Parameters(512));
        LLamaToken[] text = context.Tokenize(string.Concat(Texts), addBos: true);
        _tokens = [.. Enumerable.Range(0, 3072).Select(i => text[i % text.Length])];
    }

    private LLamaContext Context => _context ??= _weights.CreateContext(Parameters(4096));

    /// <inheritdoc/>
    public void Load()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(Parameters(512));
    }

    /// <inheritdoc/>
    public void Prefill()
    {
        Context.NativeHandle.MemoryClear();
        _depth = 0;
        Read(512);
    }

    /// <inheritdoc/>
    public void Decode(int depth)
    {
        if (_depth != depth || depth == 0)
        {
            Context.NativeHandle.MemoryClear();
            _depth = 0;
            Read(depth);
        }
        else
        {
            Context.NativeHandle.MemorySequenceRemove(LLamaSeqId.Zero, depth, -1);
        }

        LLamaToken token = _tokens[0];
        var batch = new LLamaBatch();
        for (int i = 0; i < Answer; i++)
        {
            batch.Clear();
            batch.Add(token, depth + i, LLamaSeqId.Zero, true);
            Check(Context.Decode(batch));
            token = _sampling.Sample(Context.NativeHandle, 0);
        }
    }

    /// <inheritdoc/>
    public void Batch(int conversations) => BatchAsync(conversations).GetAwaiter().GetResult();

    /// <inheritdoc/>
    public void Embed() => EmbedAsync().GetAwaiter().GetResult();

    /// <inheritdoc/>
    public void Dispose()
    {
        _context?.Dispose();
        _embedder?.Dispose();
        _weights.Dispose();
    }

    private static void Check(DecodeResult result)
    {
        if (result != DecodeResult.Ok)
        {
            throw new InvalidOperationException($"Decoding gave {result}.");
        }
    }

    private void Read(int count)
    {
        for (int start = 0; start < count; start += 512)
        {
            var batch = new LLamaBatch();
            for (int i = start; i < Math.Min(start + 512, count); i++)
            {
                batch.Add(_tokens[i], i, LLamaSeqId.Zero, i == count - 1);
            }

            Check(Context.Decode(batch));
        }

        _depth = count;
    }

    private async Task BatchAsync(int count)
    {
        // Of each step: LLamaSharp numbers conversations on, and a context has so many sequences.
        using var executor = new BatchedExecutor(_weights, Parameters((uint)(128 * count), sequences: (uint)count));
        Conversation[] conversations = [.. Enumerable.Range(0, count).Select(_ => executor.Create())];
        for (int i = 0; i < count; i++)
        {
            conversations[i].Prompt(_tokens.AsSpan(i, 64));
        }

        var next = new LLamaToken[count];
        for (int step = 0; step < 32; step++)
        {
            // More conversations than a batch has room for take several; LLamaSharp keeps the logits of the last one alone.
            while (conversations.Any(conversation => conversation.RequiresInference))
            {
                Check(await executor.Infer().ConfigureAwait(false));
                for (int i = 0; i < count; i++)
                {
                    if (conversations[i].RequiresSampling)
                    {
                        next[i] = _sampling.Sample(executor.Context.NativeHandle, conversations[i].GetSampleIndex());
                    }
                }
            }

            for (int i = 0; i < count; i++)
            {
                conversations[i].Prompt(next[i]);
            }
        }

        foreach (Conversation conversation in conversations)
        {
            conversation.Dispose();
        }
    }

    private async Task EmbedAsync()
    {
        _embedder ??= new LLamaEmbedder(_weights, Parameters(512, embeddings: true));
        foreach (string text in Texts)
        {
            await _embedder.GetEmbeddings(text).ConfigureAwait(false);
        }
    }

    private ModelParams Parameters(uint context, uint sequences = 1, bool embeddings = false)
    {
        var parameters = new ModelParams(_model)
        {
            ContextSize = context,
            SeqMax = sequences,
            BatchSize = 512,
            UBatchSize = 512,
            Threads = Threads,
            BatchThreads = Threads,
            GpuLayerCount = 0,
            LoadMode = LLamaLoadMode.MemoryMap,
            FlashAttention = true,
            KVUnified = true,
            Embeddings = embeddings,
            PoolingType = embeddings ? LLamaPoolingType.Mean : LLamaPoolingType.Unspecified,
        };
#if LLAMASHARP
        (parameters.TypeK, parameters.TypeV) = _cache == "f16" ? (GGMLType.GGML_TYPE_F16, GGMLType.GGML_TYPE_F16) : throw new NotSupportedException(_cache);
#else
        parameters.KvCache = KvCacheParams.Parse(_cache);
#endif
        return parameters;
    }
}
