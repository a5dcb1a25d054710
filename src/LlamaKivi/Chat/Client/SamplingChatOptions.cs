using LlamaKivi.Native;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Chat options with sampling settings for which Microsoft.Extensions.AI has no names.</summary>
internal sealed class SamplingChatOptions : ChatOptions
{
    public SamplingChatOptions()
    {
    }

    private SamplingChatOptions(SamplingChatOptions other)
        : base(other) => (LogitBias, MinP, RepeatPenalty, StreamsCalls) = (other.LogitBias, other.MinP, other.RepeatPenalty, other.StreamsCalls);

    /// <summary>Biases added to the logits of tokens; null: none.</summary>
    public IReadOnlyDictionary<LLamaToken, float>? LogitBias { get; set; }

    /// <summary>Minimum probability relative to the most probable token's; null: the default.</summary>
    public float? MinP { get; set; }

    /// <summary>Repetition penalty; null: none.</summary>
    public float? RepeatPenalty { get; set; }

    /// <summary>Whether updates carry the arguments of calls as they are written, as <see cref="CallDelta"/>.</summary>
    public bool StreamsCalls { get; set; }

    public override ChatOptions Clone() => new SamplingChatOptions(this);
}
