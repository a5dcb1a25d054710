using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Order;
using BenchmarkDotNet.Toolchains.InProcess.Emit;

namespace PeerBenchmark;

/// <summary>The steps of the workload on each library and cache, beside each other.</summary>
[MemoryDiagnoser]
[Config(typeof(InProcess))]
public class Libraries
{
    /// <summary>Names of libraries with the caches they are run with.</summary>
    public static string[] Names { get; } = ["LLamaSharp-f16", "LlamaKivi-f16", "LlamaKivi-kivi2"];

    /// <summary>The steps by name.</summary>
    public static readonly IReadOnlyDictionary<string, Action<IWorkload>> Steps = new Dictionary<string, Action<IWorkload>>
    {
        ["load"] = workload => workload.Load(),
        ["prefill 512"] = workload => workload.Prefill(),
        ["decode 128 at depth 0"] = workload => workload.Decode(0),
        ["decode 128 at depth 3072"] = workload => workload.Decode(3072),
        ["1 conversation, 64 + 32 tokens"] = workload => workload.Batch(1),
        ["4 conversations, 64 + 32 tokens"] = workload => workload.Batch(4),
        ["8 conversations, 64 + 32 tokens"] = workload => workload.Batch(8),
        ["16 conversations, 64 + 32 tokens"] = workload => workload.Batch(16),
        ["64 conversations, 64 + 32 tokens"] = workload => workload.Batch(64),
        ["8 embeddings"] = workload => workload.Embed(),
    };

    private IWorkload _workload = null!;

    /// <summary>Which library.</summary>
    [ParamsSource(nameof(Names))]
    public string Library { get; set; } = "";

    /// <summary>Which step.</summary>
    [ParamsSource(nameof(StepNames))]
    public string Step { get; set; } = "";

    /// <summary>The steps to choose from.</summary>
    public static IEnumerable<string> StepNames => Steps.Keys;

    /// <summary>Creates a workload.</summary>
    public static IWorkload Create(string library)
    {
        string model = Path.Combine(AppContext.BaseDirectory, "models", "kivi-demo-llama-37m-q4_k_m.gguf");
        string[] parts = library.Split('-');
        return parts[0] switch
        {
            "LLamaSharp" => new OnLLamaSharp.Workload(model, parts[1]),
            "LlamaKivi" => new OnLlamaKivi.Workload(model, parts[1]),
            _ => throw new ArgumentException($"'{library}' is none of {string.Join(", ", Names)}."),
        };
    }

    /// <summary>Runs the step once, so that what it keeps is there.</summary>
    [GlobalSetup]
    public void Setup()
    {
        _workload = Create(Library);
        Run();
    }

    /// <summary>Frees the library.</summary>
    [GlobalCleanup]
    public void Cleanup() => _workload.Dispose();

    /// <summary>The step.</summary>
    [Benchmark]
    public void Run() => Steps[Step](_workload);

    private sealed class InProcess : ManualConfig
    {
        public InProcess()
        {
            AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance).WithInvocationCount(1).WithUnrollFactor(1).WithWarmupCount(1).WithIterationCount(15));
            Orderer = new DefaultOrderer(SummaryOrderPolicy.Declared);
        }
    }
}
