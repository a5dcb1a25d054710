using System.Buffers;
using System.Numerics.Tensors;
using LlamaKivi.Native;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling;

/// <summary>A start for pipelines: <see cref="CreateChain"/> or the choice from a row of logits is left to write.</summary>
/// <inheritdoc cref="ISamplingPipeline" path="/remarks"/>
public abstract class BaseSamplingPipeline : ISamplingPipeline
{
    private readonly PipelineGuard _guard = new();
    private SafeLLamaSamplerChainHandle? _chain;
    private GrammarMatcher? _matcher;
    private Tokenizer? _matched;  // the vocabulary the matcher is for
    private float[] _constrained = [];

    // Null: any number of calls may use the pipeline at once.
    internal virtual PipelineGuard? Guard => _guard;

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

    /// <summary>Begins a text: what a grammar has seen of the last one is forgotten.</summary>
    internal void BeginText()
    {
        using PipelineGuard.Entry entry = Enter();
        _matcher?.Reset();
    }

    private protected PipelineGuard.Entry Enter() => Guard is { } guard ? guard.Enter(this) : default;

    private protected PipelineGuard.Entry EnterToSample() => Guard is { } guard ? guard.EnterToSample(this) : default;

    // The logits with -infinity for the tokens that the grammar does not allow next; the given ones without a grammar.
    private protected virtual ReadOnlySpan<float> Constrain(SafeLLamaContextHandle ctx, ReadOnlySpan<float> logits, Grammar? grammar)
    {
        if (grammar is null)
        {
            return logits;
        }

        if (ctx.Tokenizer is not { HasTexts: true } tokenizer)
        {
            throw new InvalidOperationException("A grammar needs the texts of the tokens, and this model's file has no vocabulary.");
        }

        if (_matcher is null || _matched != tokenizer)
        {
            _matcher = new GrammarMatcher(grammar.Compiled, tokenizer);
            _matched = tokenizer;
        }

        if (_constrained.Length < logits.Length)
        {
            _constrained = new float[logits.Length];
        }

        Span<float> constrained = _constrained.AsSpan(0, logits.Length);
        logits.CopyTo(constrained);
        _matcher.Mask(constrained);
        return constrained;
    }

    // Takes a token that was chosen from constrained logits into the grammar's text.
    private protected virtual void Follow(LLamaToken token) => _matcher?.Accept((int)token);

    /// <summary>Frees what the pipeline holds.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Frees what the pipeline holds.</summary>
    protected virtual void Dispose(bool disposing)
    {
        _chain?.Dispose();
        _chain = null;
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
            throw LogitCheck.Broken("", logits.IndexOf(max), max);
        }

        if (float.IsNegativeInfinity(max))
        {
            throw new InvalidOperationException("Every logit is -infinity: no token is left to choose. Allow some in LogitBias.");
        }

        return max;
    }
}
