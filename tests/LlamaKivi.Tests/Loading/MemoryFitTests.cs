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

    [Theory]
    [InlineData(-1, false)]
    [InlineData(-1, true)]
    [InlineData(5, false)]
    public void Layers_leave_the_GPU_unless_their_number_was_given(int given, bool hasContext)
    {
        ModelParams parameters = Params() with { ContextSize = hasContext ? 8192 : null, GpuLayerCount = given };
        MemoryEstimate Device(ModelParams of, int layers) => ContextHandle.Estimate(_file, ContextOptionsFactory.Create(of), layers);
        long free = Device(Params(4096), 5).DeviceBytes * 100 / 97 + 1024;
        string change = MemoryFit.Apply(_file, parameters, given, free, 1L << 40)!;
        int layers = parameters.GpuLayerCount;
        Assert.True(Device(Params(parameters.ContextSize ?? 4096), layers).DeviceBytes <= free, change);
        if (given >= 0)
        {
            return;
        }

        // The trained context of the demo model is 4096 tokens, so a context without a size does not shrink before layers leave.
        Assert.Equal(hasContext ? 8192u : null, parameters.ContextSize);
        Assert.InRange(layers, 1, hasContext ? 4 : 5);
        Assert.True(Device(Params(hasContext ? 8192u : 4096u), layers + 1).DeviceBytes > free * 97 / 100);
        Assert.Contains($"are free on the GPU: {layers} of 10 layers are on the GPU, which needs", change, StringComparison.Ordinal);
    }

    [Fact]
    public void A_model_without_room_on_the_GPU_runs_on_the_CPU()
    {
        ModelParams parameters = Params() with { GpuLayerCount = -1 };
        string change = MemoryFit.Apply(_file, parameters, -1, 1 << 20, 1L << 40)!;
        Assert.Equal((0, 32768u), (parameters.GpuLayerCount, parameters.ContextSize!.Value));
        Assert.Contains("1 MiB are free on the GPU: no layer fits on the GPU, so the CPU computes all, which needs", change, StringComparison.Ordinal);
        OutOfDeviceMemoryException none = Assert.Throws<OutOfDeviceMemoryException>(() => MemoryFit.Apply(_file, Params() with { GpuLayerCount = 3 }, 3, 1 << 20, 1L << 40));
        Assert.Contains("fewer layers on the GPU", none.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Without_room_anywhere_host_memory_is_what_lacks()
    {
        NativeOutOfMemoryException none = Assert.Throws<NativeOutOfMemoryException>(() => MemoryFit.Apply(_file, Params() with { GpuLayerCount = -1 }, -1, 1 << 20, 2 << 20));
        Assert.Contains("2 MiB are free: not even", none.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("fewer layers", none.Message, StringComparison.Ordinal);  // none are left to take away
    }

    [Fact]
    public void A_description_has_the_sizes()
    {
        string text = MemoryFit.Describe(_file, Params() with { GpuLayerCount = 0 });
        Assert.Matches(@"a context of 32768 tokens for 4 sequences on the CPU needs [\d,]+ MiB; [\d,]+ MiB are free", text);
    }
}
