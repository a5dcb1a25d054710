using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests.Sampling;

public class GreedySamplingPipelineTests
{
    [Fact]
    public void Takes_the_greatest_and_of_equal_ones_the_lowest_id()
    {
        using var pipeline = new GreedySamplingPipeline();
        Assert.Equal(2, (int)pipeline.Sample([-3f, -2f, -1f, -1f]));
        float[] logits = new float[1000];
        logits[998] = logits[333] = 1;
        Assert.Equal(333, (int)pipeline.Sample(logits));
    }

    [Fact]
    public void Refuses_NaN()
    {
        using var pipeline = new GreedySamplingPipeline();
        Assert.Throws<NumericErrorException>(() => pipeline.Sample([1f, float.NaN]));
    }
}
