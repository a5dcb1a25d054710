using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Benchmarks;

/// <summary>
/// Managed overhead per token: decodes the same tokens with the native call alone, with a handwritten decode loop, and with
/// a streaming executor. The model is tiny, so the overhead dominates.
/// </summary>
[MemoryDiagnoser]
[Config(typeof(InProcess))]
public class TokenOverhead
{
    private const int Tokens = 512;

    private string _path = "";
    private LLamaWeights _weights = null!;
    private LLamaContext _context = null!;
    private InteractiveExecutor _executor = null!;
    private InferenceParams _inference = null!;

    [GlobalSetup]
    public void Setup()
    {
        _path = TinyModel.Write(Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf"));
        var parameters = new ModelParams(_path) { ContextSize = 1024, Threads = 1, KvCache = KvCacheParams.Parse("f16") };
        _weights = LLamaWeights.LoadFromFile(parameters);
        _context = _weights.CreateContext(parameters);
        _executor = new InteractiveExecutor(_context);
        _inference = new InferenceParams { MaxTokens = Tokens, SamplingPipeline = new GreedySamplingPipeline() };
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        _context.Dispose();
        _weights.Dispose();
        File.Delete(_path);
    }

    [IterationSetup]
    public void Forget()
    {
        _context.Handle.SeqTruncate(0, 0);
        _executor = new InteractiveExecutor(_context);
    }

    [Benchmark(Baseline = true, OperationsPerInvoke = Tokens)]
    public int NativeCall()
    {
        for (int i = 0; i < Tokens; i++)
        {
            Decode(i);
        }

        return Tokens;
    }

    /// <summary>Minimum cost of an asynchronous stream: the native call on a thread pool thread.</summary>
    [Benchmark(OperationsPerInvoke = Tokens)]
    public async Task<int> NativeCallOnThePool()
    {
        for (int i = 0; i < Tokens; i++)
        {
            await Task.Run(() => Decode(i)).ConfigureAwait(false);
        }

        return Tokens;
    }

    [Benchmark(OperationsPerInvoke = Tokens)]
    public int DecodeLoop()
    {
        Span<int> token = [1];
        for (int i = 0; i < Tokens; i++)
        {
            _context.Handle.Decode(token);
            token[0] = (int)_inference.SamplingPipeline.Sample(_context.NativeHandle, 0);
        }

        return token[0];
    }

    [Benchmark(OperationsPerInvoke = Tokens)]
    public async Task<int> StreamedText()
    {
        int characters = 0;
        await foreach (string text in _executor.InferAsync("The", _inference).ConfigureAwait(false))
        {
            characters += text.Length;
        }

        return _executor.GeneratedTokens.Count == Tokens ? characters : throw new InvalidOperationException("The model ended the text early.");
    }

    private unsafe void Decode(int token)
    {
        lk_batch batch = new() { tokens = &token, n_tokens = 1 };
        if (NativeMethods.lk_decode(_context.Handle.Pointer, &batch) != lk_status.LK_OK)
        {
            throw new InvalidOperationException("The native call failed.");
        }
    }

    private sealed class InProcess : ManualConfig
    {
        public InProcess() => AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance).WithInvocationCount(1).WithUnrollFactor(1).WithIterationCount(60));
    }
}
