using System.Buffers;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// A pipeline that is a chain of LLamaSharp's samplers. The pipelines of this library override all of it.
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

    /// <summary>Makes the samplers of a pipeline that is a chain of them. Called once, with the first token.</summary>
    protected virtual SafeLLamaSamplerChainHandle CreateChain(SafeLLamaContextHandle context) =>
        throw new NotSupportedException($"{GetType().Name} says neither how to choose from logits nor which samplers to use: override CreateChain or Sample.");

    /// <summary>Chooses a token from a row of logits, one per vocabulary token, and accepts it. The logits stay as they are.</summary>
    /// <exception cref="ArgumentException">There are no logits.</exception>
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

    /// <summary>Applies the pipeline's samplers to candidates.</summary>
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

    // A class of somebody's own may have overridden the method that takes LLamaSharp's handle.
    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index) => ((ISamplingPipeline)this).Sample(context.NativeHandle, index);

    /// <summary>Frees what the pipeline holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
        _chain?.Dispose();
        _chain = null;
    }
}
