using System.Numerics.Tensors;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>A start for pipelines: the choice from a row of logits is left to write.</summary>
public abstract class BaseSamplingPipeline : ISamplingPipeline
{
    /// <inheritdoc/>
    public virtual LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        return Sample(ctx.GetLogitsIth(index));
    }

    /// <summary>Chooses a token from a row of logits, one per vocabulary token, and accepts it. The logits stay as they are.</summary>
    /// <exception cref="ArgumentException">There are no logits.</exception>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">Every logit is -infinity.</exception>
    public abstract LLamaToken Sample(ReadOnlySpan<float> logits);

    /// <inheritdoc/>
    public abstract void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data);

    /// <inheritdoc/>
    public virtual void Reset()
    {
    }

    /// <inheritdoc/>
    public virtual void Accept(LLamaToken token)
    {
    }

    /// <summary>Frees what the pipeline holds.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees what the pipeline holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
    }

    // The greatest logit; equal ones: the lowest index.
    internal static int Greatest(ReadOnlySpan<float> logits)
    {
        float max = CheckedMax(logits);
        return logits.IndexOf(max);
    }

    internal static float CheckedMax(ReadOnlySpan<float> logits)
    {
        if (logits.IsEmpty)
        {
            throw new ArgumentException("There are no logits.", nameof(logits));
        }

        float max = TensorPrimitives.Max(logits);  // NaN if any is
        if (float.IsNaN(max) || float.IsPositiveInfinity(max))
        {
            throw new NumericErrorException(
                $"The logit of token {logits.IndexOf(max)} is {(float.IsNaN(max) ? "NaN" : "+infinity")}: the model's computation failed; no token can be chosen.");
        }

        if (float.IsNegativeInfinity(max))
        {
            throw new InvalidOperationException("Every logit is -infinity: no token is left to choose. Allow some in LogitBias.");
        }

        return max;
    }
}
