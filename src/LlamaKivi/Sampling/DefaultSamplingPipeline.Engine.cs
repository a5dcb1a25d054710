using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// Sampling by the engine, where the logits are computed.
public partial class DefaultSamplingPipeline
{
    private bool _draws;            // whether the described sampling uses a random number
    private Xoshiro256 _described;  // the random numbers at the description

    // Whether a setting needs a stage that only managed code has.
    private bool NeedsLogits =>
        Grammar is not null || LogitBias.Count > 0 || PreventEOS || DryMultiplier > 0 || TopNSigma > 0 || TypicalP < 1 || XtcProbability > 0
        || Mirostat != MirostatType.Disable || MinKeep > 1 || TopP == 0 || GetType() != typeof(DefaultSamplingPipeline);

    internal override bool TryDescribe(int? newline, List<TokenCount> recent, out SamplingParameters parameters)
    {
        using PipelineGuard.Entry entry = Enter();
        parameters = default;
        if (NeedsLogits)
        {
            return false;
        }

        var penalties = new TokenPenalties(RepeatPenalty, FrequencyPenalty, PresencePenalty);
        if (!penalties.IsOff)
        {
            foreach (TokenCount token in _adjustments.Recent)
            {
                if (PenalizeNewline || token.Token != newline)
                {
                    recent.Add(token);
                }
            }
        }

        Xoshiro256 random = _random;  // a copy: a failed step must not use up the number
        _described = _random;
        _draws = Temperature > 0;
        parameters = new SamplingParameters
        {
            Temperature = Math.Max(Temperature, 0),
            TopK = TopK,
            TopP = TopP,
            MinP = MinP,
            RepeatPenalty = penalties.Repeat,
            FrequencyPenalty = penalties.Frequency,
            PresencePenalty = penalties.Presence,
            Draw = _draws ? random.NextDouble() : 0,
        };
        return true;
    }

    internal override void Commit(LLamaToken token)
    {
        using PipelineGuard.Entry entry = Enter();
        if (_draws)
        {
            if (_random != _described)
            {
                throw new InvalidOperationException(
                    $"This {GetType().Name} has sampled other tokens, or got another Seed, since Infer sampled one for this conversation, whose random number is thus no longer the next: give each conversation its own pipeline.");
            }

            _random.NextDouble();
        }

        Accept(token);
    }
}
