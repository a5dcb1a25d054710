using System.CommandLine;
using LlamaKivi.Sampling;

namespace LlamaKivi.Cli.Options;

/// <summary>How `run` chooses tokens.</summary>
internal sealed class SamplingOptions
{
    private readonly Option<uint?> _seed = new("--seed", "-s") { Description = "Seed of the random numbers. Default: a new one.", HelpName = "N" };
    private readonly Option<float> _temperature = new("--temp") { Description = "Temperature; 0: always the likeliest token.", HelpName = "T", DefaultValueFactory = _ => 0.8f };
    private readonly Option<int> _topK = new("--top-k") { Description = "Keep the K likeliest tokens; 0: all.", HelpName = "K", DefaultValueFactory = _ => 40 };
    private readonly Option<float> _topP = new("--top-p") { Description = "Keep the likeliest tokens that sum to P.", HelpName = "P", DefaultValueFactory = _ => 0.95f };
    private readonly Option<float> _minP = new("--min-p") { Description = "Drop tokens below P times the likeliest.", HelpName = "P", DefaultValueFactory = _ => 0.05f };
    private readonly Option<float> _repeatPenalty = new("--repeat-penalty") { Description = "Divisor of repeated tokens' logits; 1: none.", HelpName = "X", DefaultValueFactory = _ => 1f };

    public SamplingOptions(Command command)
    {
        command.Add(_seed);
        command.Add(_temperature);
        command.Add(_topK);
        command.Add(_topP);
        command.Add(_minP);
        command.Add(_repeatPenalty);
    }

    public ISamplingPipeline Read(ParseResult parsed)
    {
        float temperature = NumberOptions.InRange(parsed.GetValue(_temperature), 0, float.PositiveInfinity, "--temp");
        int topK = NumberOptions.AtLeast(0, parsed.GetValue(_topK), "--top-k");
        float topP = NumberOptions.InRange(parsed.GetValue(_topP), 0, 1, "--top-p");
        float minP = NumberOptions.InRange(parsed.GetValue(_minP), 0, 1, "--min-p");
        float repeatPenalty = parsed.GetValue(_repeatPenalty);
        if (!(repeatPenalty > 0) || float.IsInfinity(repeatPenalty))
        {
            throw CliException.Usage($"--repeat-penalty is {repeatPenalty}; it must be above 0");
        }

        if (temperature == 0 && repeatPenalty == 1)
        {
            return new GreedySamplingPipeline();
        }

        // Greedy with a penalty: top-k 1 after the penalty is the same at any temperature.
        return new DefaultSamplingPipeline
        {
            Temperature = temperature == 0 ? 1 : temperature,
            TopK = temperature == 0 ? 1 : topK,
            TopP = topP,
            MinP = minP,
            RepeatPenalty = repeatPenalty,
            Seed = parsed.GetValue(_seed) ?? (uint)Random.Shared.NextInt64(uint.MaxValue),
        };
    }
}
