using System.CommandLine;
using LlamaKivi.Sampling;

namespace LlamaKivi.Cli;

/// <summary>Sampling options of commands that generate text.</summary>
internal sealed class SamplingOptions
{
    private readonly Option<uint?> _seed = NumberOptions.Seed("--seed", "-s", "Seed of the sampling (default: random)");
    private readonly Option<float> _temperature = NumberOptions.Real("--temp", "Temperature; 0: greedy", 0, float.MaxValue, 0.8f);
    private readonly Option<int> _topK = NumberOptions.Whole("--top-k", null, "Number of most probable tokens kept; 0: all", 0, int.MaxValue, 40);
    private readonly Option<float> _topP = NumberOptions.Real("--top-p", "Total probability of the tokens kept", 0, 1, 0.95f);
    private readonly Option<float> _minP = NumberOptions.Real("--min-p", "Minimum probability relative to the largest", 0, 1, 0.05f);
    private readonly Option<float> _penalty = NumberOptions.Real("--repeat-penalty", "Repetition penalty; 1: none", 0.01f, float.MaxValue, 1);

    public Option[] All => [_seed, _temperature, _topK, _topP, _minP, _penalty];

    public DefaultSamplingPipeline Pipeline(ParseResult parsed)
    {
        var pipeline = new DefaultSamplingPipeline
        {
            Temperature = parsed.GetValue(_temperature),
            TopK = parsed.GetValue(_topK),
            TopP = parsed.GetValue(_topP),
            MinP = parsed.GetValue(_minP),
            RepeatPenalty = parsed.GetValue(_penalty),
        };
        pipeline.Seed = parsed.GetValue(_seed) ?? pipeline.Seed;
        return pipeline;
    }
}
