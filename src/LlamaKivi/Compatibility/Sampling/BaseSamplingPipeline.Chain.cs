using System.Buffers;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// Support for pipelines built from LLamaSharp's samplers. The library's own pipelines override all of it.
public abstract partial class BaseSamplingPipeline
{
    private SafeLLamaSamplerChainHandle? _chain;

    /// <inheritdoc/>
    public virtual LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
    {
        ArgumentNullException.ThrowIfNull(ctx);
        using PipelineGuard.Entry entry = EnterToSample();
        _chain ??= CreateChain(ctx);
        return Sample(ctx.GetLogitsIth(index));
    }

    /// <summary>Creates the pipeline's sampler chain. Called once, for the first token.</summary>
    protected virtual SafeLLamaSamplerChainHandle CreateChain(SafeLLamaContextHandle context) =>
        throw new NotSupportedException($"{GetType().Name} has no sampler chain and no sampling method of its own: override CreateChain or Sample.");

    /// <summary>Samples a token from a row of logits, [vocabulary size], and accepts it. The logits are not changed.</summary>
    /// <exception cref="ArgumentException">The row is empty.</exception>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity.</exception>
    /// <exception cref="InvalidOperationException">Every logit is -infinity.</exception>
    public virtual LLamaToken Sample(ReadOnlySpan<float> logits)
    {
        using PipelineGuard.Entry entry = EnterToSample();
        return _chain is { } chain ? chain.Sample(logits) : throw new NotSupportedException($"{GetType().Name} has no samplers yet; sample from a context first.");
    }

    /// <inheritdoc/>
    public virtual void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data)
    {
        using MemoryHandle pin = LLamaTokenDataArrayNative.Create(data, out LLamaTokenDataArrayNative native);
        Apply(ctx, ref native);
    }

    /// <summary>Applies the sampler chain to candidates.</summary>
    public virtual void Apply(SafeLLamaContextHandle ctx, ref LLamaTokenDataArrayNative data)
    {
        using PipelineGuard.Entry entry = Enter();
        _chain ??= CreateChain(ctx);
        _chain.Apply(ref data);
    }

    /// <inheritdoc/>
    public virtual void Reset()
    {
        using PipelineGuard.Entry entry = Enter();
        _chain?.Reset();
    }

    /// <inheritdoc/>
    public virtual void Accept(LLamaToken token)
    {
        using PipelineGuard.Entry entry = Enter();
        _chain?.Accept(token);
    }

    // A derived class may override only the overload that takes LLamaSharp's handle.
    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index) => ((ISamplingPipeline)this).Sample(context.NativeHandle, index);

    /// <summary>Frees the pipeline's resources.</summary>
    protected virtual void Dispose(bool disposing)
    {
        _chain?.Dispose();
        _chain = null;
    }
}
