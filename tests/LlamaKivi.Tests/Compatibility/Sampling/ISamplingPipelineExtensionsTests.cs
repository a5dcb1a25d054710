using LlamaKivi.Sampling;

namespace Elsewhere;

/// <summary>The extension is found with only the pipelines' namespace imported.</summary>
public sealed class ISamplingPipelineExtensionsTests(LlamaKivi.Tests.InferenceTests.DemoModel model) : IClassFixture<LlamaKivi.Tests.InferenceTests.DemoModel>
{
    [Fact]
    public void A_pipeline_samples_from_a_context()
    {
        using var context = model.Weights.CreateContext(new LlamaKivi.Common.ModelParams("") { ContextSize = 64 });
        var batch = new LlamaKivi.Native.LLamaBatch();
        batch.AddRange(context.Tokenize("The garbage collector"), 0, (LlamaKivi.Native.LLamaSeqId)0, logitsLast: true);
        context.Decode(batch);
        using var greedy = new GreedySamplingPipeline();
        ISamplingPipeline pipeline = greedy;
        Assert.Equal(" is", context.Vocab.LLamaTokenToString(pipeline.Sample(context, batch.TokenCount - 1), false));
    }
}
