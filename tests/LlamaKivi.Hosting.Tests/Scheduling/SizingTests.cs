using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Hosting.Tests;

/// <summary>The sizing table of docs/serving.md.</summary>
public sealed class SizingTests
{
    [Fact]
    public void A_quantized_cache_holds_several_times_the_streams()
    {
        using GgufFile file = GgufFile.Open(Engines.ModelPath);
        const long Budget = 256L << 20;
        int Streams(string type)
        {
            long Needed(int streams) => MemoryFit.Needed(file, Engines.Options(checked((uint)(1024 * streams)), checked((uint)streams)) with { KvCache = KvCacheParams.Parse(type), BatchSize = 512 });
            int fit = 0;
            long one = Needed(1);
            int step = 1024;
            for (; step > 0; step /= 2)
            {
                if (fit + step <= 2048 && Needed(fit + step) - one <= Budget)
                {
                    fit += step;
                }
            }

            return fit;
        }

        (int f16, int kivi2) = (Streams("f16"), Streams("kivi2"));
        TestContext.Current.TestOutputHelper?.WriteLine($"streams of 1,024 tokens in 256 MiB: {f16} f16, {Streams("q8_0")} q8_0, {Streams("kivi4")} kivi4, {kivi2} kivi2");
        Assert.True(kivi2 >= 3 * f16, $"{kivi2} streams with kivi2, {f16} with f16");
    }
}
