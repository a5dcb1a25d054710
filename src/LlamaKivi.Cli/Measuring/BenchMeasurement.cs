using System.Diagnostics;
using LlamaKivi.Cli.Options;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Measuring;

/// <summary>One row: a test at a depth with a cache type. Speeds in tokens per second.</summary>
internal sealed record BenchRow
{
    public required string Model { get; init; }

    public required string Processor { get; init; }

    public required int Threads { get; init; }

    public required string KvCache { get; init; }

    /// <summary>"pp512" or "tg128 @ d3072".</summary>
    public required string Test { get; init; }

    public required int Depth { get; init; }

    public required double TokensPerSecond { get; init; }

    /// <summary>Sample standard deviation over the repetitions.</summary>
    public required double Stddev { get; init; }

    public required int Repetitions { get; init; }

    /// <summary>What a cache that holds one sequence of this test's length takes, pages and rings.</summary>
    public required long CacheBytes { get; init; }
}

/// <summary>What to time.</summary>
internal sealed record BenchPlan(string Model, int PromptTokens, int GeneratedTokens, IReadOnlyList<int> Depths, int? Threads, int Repetitions)
{
    public int LongestTest => Math.Max(PromptTokens, GeneratedTokens);
}

/// <summary>Times prefill and decode of one cache type at every depth.</summary>
/// <remarks>
/// Sequence 0 grows to each depth once. Every repetition copies it to sequence 1, which shares its pages, and times there.
/// </remarks>
internal sealed class BenchMeasurement : IDisposable
{
    private const int Seed = 42;
    private const int PrefillChunk = 512;
    private const int Slack = 512; // cut pages of the two sequences

    private readonly LLamaWeights _weights;
    private readonly BenchPlan _plan;
    private readonly KvCacheParams _cache;
    private readonly LLamaContext _context;
    private readonly int[] _tokens;     // random ids, enough for any call
    private readonly int[] _sequence1;  // as many ones

    public BenchMeasurement(LLamaWeights weights, BenchPlan plan, KvCacheParams cache)
    {
        _weights = weights;
        _plan = plan;
        _cache = cache;
        int deepest = plan.Depths.Max();
        // The engine counts tokens of shared pages for each sequence. Pages are allocated as they fill, so room costs nothing.
        int size = checked(2 * (deepest + plan.LongestTest) + Slack);
        _context = weights.CreateContext(new ModelParams(plan.Model) { ContextSize = (uint)size, SeqMax = 2, Threads = plan.Threads, KvCache = cache });
        int length = Math.Max(deepest, plan.LongestTest);
        var random = new Random(Seed);
        _tokens = new int[length];
        for (int i = 0; i < length; i++)
        {
            _tokens[i] = random.Next(weights.Model.Description.VocabularySize);
        }

        _sequence1 = new int[length];
        Array.Fill(_sequence1, 1);
    }

    public void Dispose() => _context.Dispose();

    public IEnumerable<BenchRow> Run(Action<double> report, CancellationToken cancellationToken)
    {
        int done = 0;
        double total = _plan.Depths.Count * (_plan.Repetitions + 1) * ((_plan.PromptTokens > 0 ? 1 : 0) + (_plan.GeneratedTokens > 0 ? 1 : 0));
        foreach (int depth in _plan.Depths.Order())
        {
            Fill(depth, cancellationToken);
            if (_plan.PromptTokens > 0)
            {
                yield return Time("pp", _plan.PromptTokens, depth, Prefill, () => report(++done / total), cancellationToken);
            }

            if (_plan.GeneratedTokens > 0)
            {
                yield return Time("tg", _plan.GeneratedTokens, depth, Generate, () => report(++done / total), cancellationToken);
            }
        }
    }

    private BenchRow Time(
        string name, int count, int depth, Action<int, CancellationToken> test, Action step, CancellationToken cancellationToken)
    {
        ContextHandle context = _context.Handle;
        var speeds = new RunningMoments();
        for (int repetition = -1; repetition < _plan.Repetitions; repetition++)
        {
            context.SeqCopy(0, 1);
            long start = Stopwatch.GetTimestamp();
            test(count, cancellationToken);
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            context.SeqTruncate(1, 0);
            if (repetition >= 0) // the first is a warm-up
            {
                speeds.Add(count / seconds);
            }

            step();
        }

        return new BenchRow
        {
            Model = Path.GetFileName(_plan.Model),
            Processor = NativeEngine.CpuDescription,
            Threads = _plan.Threads ?? Environment.ProcessorCount,
            KvCache = KvCacheOptions.Name(_cache),
            Test = depth == 0 ? $"{name}{count}" : $"{name}{count} @ d{depth}",
            Depth = depth,
            TokensPerSecond = speeds.Mean,
            Stddev = Math.Sqrt(speeds.SampleVariance),
            Repetitions = _plan.Repetitions,
            CacheBytes = CacheBytes(depth + count),
        };
    }

    private void Fill(int depth, CancellationToken cancellationToken)
    {
        for (int filled = _context.Handle.SeqLength(0); filled < depth;)
        {
            int count = Math.Min(PrefillChunk, depth - filled);
            _context.Handle.Decode(_tokens.AsSpan(filled, count), cancellationToken: cancellationToken);
            filled += count;
        }
    }

    private void Prefill(int count, CancellationToken cancellationToken) =>
        _context.Handle.Decode(_tokens.AsSpan(0, count), _sequence1.AsSpan(0, count), cancellationToken: cancellationToken);

    private void Generate(int count, CancellationToken cancellationToken)
    {
        for (int i = 0; i < count; i++)
        {
            _context.Handle.Decode(_tokens.AsSpan(i, 1), _sequence1.AsSpan(0, 1), cancellationToken: cancellationToken);
        }
    }

    private long CacheBytes(int length)
    {
        MemoryEstimate estimate = ContextHandle.Estimate(_weights.Model.Gguf, new ContextOptions
        {
            ContextSize = length,
            KeyType = _cache.TypeK,
            ValueType = _cache.TypeV,
            GroupSize = _cache.Group,
            ResidualLength = _cache.Residual,
            SinkTokens = _cache.Sinks ?? -1,
        });
        return estimate.CachePageBytes + estimate.CacheExactBytes;
    }
}
