namespace LlamaKivi.Sampling;

/// <summary>Penalties on recent tokens.</summary>
/// <param name="Repeat">Repetition penalty: divides positive logits and multiplies others (Keskar et al. 2019, made sign-aware); 1: off.</param>
/// <param name="Frequency">Frequency penalty: subtracted once per occurrence, as in the OpenAI API; 0: off.</param>
/// <param name="Presence">Presence penalty: subtracted once, as in the OpenAI API; 0: off.</param>
internal readonly record struct TokenPenalties(float Repeat, float Frequency, float Presence)
{
    public bool IsOff => Repeat == 1 && Frequency == 0 && Presence == 0;

    /// <summary>Penalized logit of a token that occurs <paramref name="count"/> times in the window.</summary>
    public float Apply(float logit, int count)
    {
        logit = logit <= 0 ? logit * Repeat : logit / Repeat;
        return logit - count * Frequency - Presence;
    }
}
