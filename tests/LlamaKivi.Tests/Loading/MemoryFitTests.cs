using LlamaKivi.Common;
using LlamaKivi.Native;
using Xunit;

namespace LlamaKivi.Tests;

public sealed class MemoryFitTests : IDisposable
{
    private readonly GgufFile _file = GgufFile.Open(InferenceTests.DemoModel.Path);

    public void Dispose() => _file.Dispose();

    private static ModelParams Params(uint context = 32768, uint sequences = 4) =>
        new(InferenceTests.DemoModel.Path) { ContextSize = context, SeqMax = sequences, KvCache = KvCacheParams.Parse("f16") };

    [Fact]
    public void Sizes_that_fit_are_unchanged()
    {
        ModelParams parameters = Params();
        Assert.Null(MemoryFit.Apply(_file, parameters, 1L << 40));
        Assert.Equal((32768u, 4u), (parameters.ContextSize!.Value, parameters.SeqMax));
        Assert.True(MemoryFit.Available(parameters) > 1 << 20);
    }

    [Fact]
    public void The_context_is_lowered_to_the_largest_that_fits()
    {
        ModelParams parameters = Params();
        long free = MemoryFit.Needed(_file, Params(8192)) * 102 / 97;
        string change = MemoryFit.Apply(_file, parameters, free)!;
        Assert.Equal(4u, parameters.SeqMax);
        Assert.InRange(parameters.ContextSize!.Value, 8192u, 12000u);
        Assert.True(MemoryFit.Needed(_file, parameters) <= free);
        Assert.True(MemoryFit.Needed(_file, Params(parameters.ContextSize.Value + 512)) > free * 97 / 100);
        Assert.Contains("from 32768 to", change, StringComparison.Ordinal);
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
        using LLamaContext context = weights.CreateContext(parameters);
        Assert.Equal(parameters.ContextSize, context.ContextSize);
    }

    [Fact]
    public void Sequences_are_lowered_when_the_context_cannot_be()
    {
        ModelParams parameters = Params(256, 4096) with { KvCache = KvCacheParams.Parse("kivi2") };
        long free = MemoryFit.Needed(_file, parameters with { SeqMax = 100 });
        string change = MemoryFit.Apply(_file, parameters, free)!;
        Assert.InRange(parameters.SeqMax, 80u, 100u);
        Assert.Contains("sequences from 4096 to", change, StringComparison.Ordinal);
    }

    [Fact]
    public void Sizes_that_cannot_fit_are_errors_with_both_numbers()
    {
        ModelParams parameters = Params();
        NativeOutOfMemoryException none = Assert.Throws<NativeOutOfMemoryException>(() => MemoryFit.Apply(_file, parameters, 1 << 20));
        Assert.Contains("1 MiB are free", none.Message, StringComparison.Ordinal);
        Assert.True(none.Needed > 1 << 20);
        Assert.Equal((32768u, 4u), (parameters.ContextSize!.Value, parameters.SeqMax));
    }
}
