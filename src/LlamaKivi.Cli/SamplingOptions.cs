using System.CommandLine;
using LlamaKivi.Sampling;

namespace LlamaKivi.Cli;

/// <summary>Options of the commands that write text.</summary>
internal sealed class SamplingOptions
{
    private readonly Option<uint?> _seed = new("--seed", "-s") { Description = "Seed of the sampling (default: random)" };
    private readonly Option<float> _temperature = new("--temp") { Description = "Temperature; 0: greedy", DefaultValueFactory = _ => 0.8f };
    private readonly Option<int> _topK = new("--top-k") { Description = "Candidates kept; 0: all", DefaultValueFactory = _ => 40 };
    private readonly Option<float> _topP = new("--top-p") { Description = "Probability mass kept", DefaultValueFactory = _ => 0.95f };
    private readonly Option<float> _minP = new("--min-p") { Description = "Least probability relative to the greatest", DefaultValueFactory = _ => 0.05f };
    private readonly Option<float> _penalty = new("--repeat-penalty") { Description = "Penalty of repetition; 1: none", DefaultValueFactory = _ => 1f };

    public Option[] All => [_seed, _temperature, _topK, _topP, _minP, _penalty];

    public DefaultSamplingPipeline Pipeline(ParseResult parsed)
    {
        float temperature = parsed.GetValue(_temperature);
        var pipeline = new DefaultSamplingPipeline
        {
            Temperature = temperature >= 0 ? temperature : throw new UsageException($"--temp is {temperature}; it must be 0 (greedy) or more"),
            TopK = parsed.GetValue(_topK),
            TopP = parsed.GetValue(_topP),
            MinP = parsed.GetValue(_minP),
            RepeatPenalty = parsed.GetValue(_penalty),
        };
        pipeline.Seed = parsed.GetValue(_seed) ?? pipeline.Seed;
        return pipeline;
    }
}
