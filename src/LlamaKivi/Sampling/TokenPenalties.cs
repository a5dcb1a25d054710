namespace LlamaKivi.Sampling;

/// <summary>How the logits of recent tokens are lowered.</summary>
/// <param name="Repeat">Divides positive logits and multiplies the others (Keskar et al. 2019, with the sign respected); 1: off.</param>
/// <param name="Frequency">Subtracted for each occurrence, as in the OpenAI API; 0: off.</param>
/// <param name="Presence">Subtracted once, as in the OpenAI API; 0: off.</param>
internal readonly record struct TokenPenalties(float Repeat, float Frequency, float Presence)
{
    public bool IsOff => Repeat == 1 && Frequency == 0 && Presence == 0;

    /// <summary>The logit of a token that occurs a number of times among the recent ones.</summary>
    public float Apply(float logit, int count)
    {
        logit = logit <= 0 ? logit * Repeat : logit / Repeat;
        return logit - count * Frequency - Presence;
    }
}
