using LlamaKivi.Common;
using LlamaKivi.TestHelpers;
using Xunit;

namespace LlamaKivi.Native.Tests;

public sealed class ContextHandleTests : IDisposable
{
    private static readonly int[] Tokens = [.. Enumerable.Range(5, 20)];

    private readonly ModelHandle _model = ModelHandle.Load(TestFiles.Model);

    private static ContextOptions Small => new() { ContextSize = 512, MaxSequences = 2, Threads = 1 };

    public void Dispose() => _model.Dispose();

    [Fact]
    public void A_context_keeps_its_model_alive()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        _model.Dispose();
        context.Decode(Tokens);
        Assert.Equal(Tokens.Length, context.SeqLength(0));
    }

    [Fact]
    public void Logits_are_finite_and_as_many_as_tokens_of_the_vocabulary()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        context.Decode(Tokens);
        Span<float> logits = context.Logits(Tokens.Length - 1);
        Assert.Equal(_model.Description.VocabularySize, logits.Length);
        foreach (float logit in logits)
        {
            Assert.True(float.IsFinite(logit));
        }

        Assert.Throws<ArgumentException>(() => context.Logits(0).Clear());
    }

    [Fact]
    public void Sequences_are_truncated_and_copied()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        context.Decode(Tokens);
        context.SeqCopy(0, 1);
        context.SeqTruncate(0, 3);
        Assert.Equal(3, context.SeqLength(0));
        Assert.Equal(Tokens.Length, context.SeqLength(1));
        Assert.Equal(3 + Tokens.Length, context.Usage.Tokens);
        Assert.Equal(512, context.Usage.Capacity);
    }

    [Fact]
    public void Tokens_are_drawn_where_logits_are_computed()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        context.Decode(Tokens);
        int best = context.Logits(Tokens.Length - 1).IndexOf(context.Logits(Tokens.Length - 1).ToArray().Max());
        context.SeqTruncate(0, 0);
        int[] sampled = new int[1];
        context.DecodeSample(Tokens, [new SamplingParameters()], sampled);
        Assert.Equal(best, sampled[0]);
        Assert.Throws<ArgumentException>(() => context.Logits(Tokens.Length - 1).Length);
        Assert.Throws<ArgumentException>(() => context.DecodeSample(Tokens, [new SamplingParameters()], new int[2]));
        Assert.Throws<ArgumentException>(() => context.DecodeSample(Tokens, [new SamplingParameters { TopP = 0 }], sampled));
        Assert.Equal(Tokens.Length, context.SeqLength(0));

        context.SeqTruncate(0, 0);
        context.DecodeSample(Tokens, [new SamplingParameters { Temperature = 5, TopK = 1, Draw = 0.9 }], sampled);
        Assert.Equal(best, sampled[0]);
    }

    [Fact]
    public void Rows_of_a_batch_have_their_own_parameters()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        byte[] outputs = [.. Tokens.Select(_ => (byte)1)];
        context.Decode(Tokens, outputs: outputs);
        float[][] rows = [.. Tokens.Select((_, i) => context.Logits(i).ToArray())];
        int best = Array.IndexOf(rows[0], rows[0].Max());
        context.SeqTruncate(0, 0);

        SamplingParameters[] samplings = [.. Tokens.Select(_ => new SamplingParameters())];
        samplings[0] = new SamplingParameters { PresencePenalty = 1000, RecentCount = 2 };
        samplings[1] = new SamplingParameters { KeepLogits = true };
        int[] sampled = new int[Tokens.Length];
        TokenCount[] recent = [.. new[] { new TokenCount(best, 1), new TokenCount(best ^ 1, 2) }.OrderBy(token => token.Token)];
        context.DecodeSample(Tokens, samplings, sampled, recent, outputs: outputs);
        Assert.NotEqual(best, sampled[0]);
        Assert.Equal(-1, sampled[1]);
        Assert.Equal(Array.IndexOf(rows[2], rows[2].Max()), sampled[2]);
        Assert.Equal([1], context.OutputIndexes);
        Assert.Equal(rows[1], context.Logits(1).ToArray());
        Assert.Throws<ArgumentException>(() => context.Logits(2).Length);

        context.SeqTruncate(0, 0);
        Assert.Contains("Output 0 has 2 recent tokens", Assert.Throws<ArgumentException>(() => context.DecodeSample(Tokens, samplings, sampled, recent.AsSpan(1), outputs: outputs)).Message);
        Assert.Contains("sampling 0: recent[1]", Assert.Throws<ArgumentException>(
            () => context.DecodeSample(Tokens, samplings, sampled, [.. recent.Reverse()], outputs: outputs)).Message);
        Assert.Throws<ArgumentException>(() => context.DecodeSample(Tokens, samplings.AsSpan(1), sampled, recent, outputs: outputs));
        Assert.Contains("a count of -1", Assert.Throws<ArgumentException>(() => context.DecodeSample(Tokens, samplings, sampled, [new(1, -1), new(2, 1)], outputs: outputs)).Message);
        Assert.Equal(0, context.SeqLength(0));
    }

    [Fact]
    public void An_observer_sees_every_layer_and_its_exceptions_reach_the_caller()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        var layers = new List<int>();
        int rows = 0;
        ModelDescription model = _model.Description;
        context.Observe(seen =>
        {
            layers.Add(seen.Layer);
            rows = seen.RowCount;
            Assert.Equal(Enumerable.Range(0, rows), seen.Positions.ToArray());
            Assert.Equal(rows * model.HeadCount * model.HeadSize, seen.Queries.Length);
            Assert.Equal(rows * model.KvHeadCount * model.HeadSize, seen.Keys.Length);
            Assert.Equal(seen.Keys.Length, seen.Values.Length);
            Assert.True(seen.SequenceIds.IndexOfAnyExcept(0) < 0);
        });
        context.Decode(Tokens);
        Assert.Equal(Enumerable.Range(0, model.LayerCount), layers);
        Assert.Equal(Tokens.Length, rows);

        context.Observe(_ => throw new InvalidOperationException("enough"));
        Assert.Equal("enough", Assert.Throws<InvalidOperationException>(() => context.Decode(Tokens)).Message);
        Assert.Equal(Tokens.Length, context.SeqLength(0));
        context.Observe(null);
        GC.Collect();
        context.Decode(Tokens);
        Assert.Equal(2 * Tokens.Length, context.SeqLength(0));
    }

    [Fact]
    public void Rows_go_through_a_cache()
    {
        var random = new Random(1);
        float[] Rows() => [.. Enumerable.Range(0, 300 * 2 * 64).Select(_ => random.NextSingle() - 0.5f)];
        double Error(KvCacheType type)
        {
            float[] keys = Rows();
            float[] before = [.. keys];
            NativeEngine.CacheRoundTrip(Small with { KeyType = type, ValueType = type, ResidualType = KvCacheType.F16 }, 2, 64, keys, Rows());
            Assert.Equal(before.AsSpan(256 * 128).ToArray(), keys.AsSpan(256 * 128).ToArray(), (a, b) => Math.Abs(a - b) < 1e-3);  // in the ring
            return Math.Sqrt(keys.Zip(before, (a, b) => (a - b) * (a - b)).Sum() / before.Sum(x => x * x));
        }

        Assert.InRange(Error(KvCacheType.F16), 0, 1e-3);
        Assert.InRange(Error(KvCacheType.Kivi4), 0.01, 0.06);
        Assert.InRange(Error(KvCacheType.Kivi2Paper), 0.1, 0.3);
        Assert.Throws<ArgumentException>(() => NativeEngine.CacheRoundTrip(Small, 2, 64, new float[100], new float[100]));
        Assert.Throws<ArgumentException>(() => NativeEngine.CacheRoundTrip(Small with { GroupSize = 33 }, 1, 64, new float[64], new float[64]));
    }

    [Fact]
    public void A_full_cache_says_so_and_changes_nothing()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        context.Decode(Tokens);
        Assert.Throws<KvCacheFullException>(() => context.Decode(new int[600]));
        Assert.Equal(Tokens.Length, context.SeqLength(0));
    }

    [Fact]
    public void Arguments_are_checked()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        Assert.Throws<ArgumentException>(() => context.Decode([-1]));
        Assert.Throws<ArgumentException>(() => context.Decode([1, 2], sequenceIds: [0]));
        Assert.Throws<ArgumentException>(() => context.SeqLength(99));
        Assert.ThrowsAny<ArgumentException>(() => ContextHandle.Create(_model, Small with { GroupSize = 7 }));
        Assert.ThrowsAny<ArgumentException>(() => ContextHandle.Create(_model, Small with { ContextSize = -1 }));
    }

    [Fact]
    public void Cancel_stops_the_next_decode_once()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        context.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => context.Decode(Tokens));
        Assert.Equal(0, context.SeqLength(0));
        context.Decode(Tokens);

        context.Cancel();
        context.CancelReset();
        context.Decode([7]);
        Assert.Equal(Tokens.Length + 1, context.SeqLength(0));
    }

    [Fact]
    public void A_cancelled_token_stops_a_decode()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        using var source = new CancellationTokenSource();
        source.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => context.Decode(Tokens, cancellationToken: source.Token));
        context.Decode(Tokens);
    }

    [Fact]
    public void Decode_and_logits_allocate_nothing()
    {
        using ContextHandle context = ContextHandle.Create(_model, Small);
        using var source = new CancellationTokenSource();
        int[] token = [7];
        Steps(40);  // compile, and make the registration that the source uses again
        Assert.Equal(0, Allocations.Of(() => Steps(20)));

        void Steps(int n)
        {
            for (int i = 0; i < n; i++)
            {
                context.Decode(token, cancellationToken: source.Token);
                context.Logits(0).Clear();
            }
        }
    }

    [Fact]
    public void An_estimate_needs_no_loaded_model()
    {
        using GgufFile gguf = GgufFile.Open(TestFiles.Model);
        MemoryEstimate kivi = ContextHandle.Estimate(gguf, Small);
        MemoryEstimate f16 = ContextHandle.Estimate(
            gguf, Small with { KeyType = KvCacheType.F16, ValueType = KvCacheType.F16 });
        Assert.Equal(_model.Description.WeightBytes, kivi.WeightBytes);
        Assert.Equal(16, f16.BitsPerElement);
        Assert.InRange(kivi.BitsPerElement, 2, 4);
        Assert.True(kivi.BytesPerToken < f16.BytesPerToken / 4);
    }
}
