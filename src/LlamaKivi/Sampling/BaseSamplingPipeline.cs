using LlamaKivi.Native;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling;

/// <summary>Base class of sampling pipelines. Derived classes override <see cref="CreateChain"/> or sample from a row of logits themselves.</summary>
/// <inheritdoc cref="ISamplingPipeline" path="/remarks"/>
public abstract partial class BaseSamplingPipeline : ISamplingPipeline
{
    private readonly PipelineGuard _guard = new();
    private GrammarMatcher? _matcher;
    private Tokenizer? _matched;  // vocabulary of the matcher
    private float[] _constrained = [];

    // Null: concurrent calls may use the pipeline.
    internal virtual PipelineGuard? Guard => _guard;

    LLamaToken ISamplingPipeline.SampleFrom(LLamaContext context, int index) => SampleFrom(context, index);

    /// <inheritdoc cref="ISamplingPipeline.SampleFrom"/>
    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index);

    // Describes the sampling of the next token for the engine, which then samples the same token as SampleFrom. False: only SampleFrom can sample it.
    // Changes no state; Commit does, after the engine has sampled.
    // newline: line break token. recent: receives the tokens that penalties apply to.
    internal virtual bool TryDescribe(int? newline, List<TokenCount> recent, out SamplingParameters parameters)
    {
        parameters = default;
        return false;
    }

    // Accepts the token that the engine sampled from the description.
    internal virtual void Commit(LLamaToken token) => throw new NotSupportedException($"{GetType().Name} samples from logits.");

    /// <summary>Starts a text: resets the grammar to its start.</summary>
    internal void BeginText()
    {
        using PipelineGuard.Entry entry = Enter();
        _matcher?.Reset();
    }

    private protected PipelineGuard.Entry Enter() => Guard is { } guard ? guard.Enter(this) : default;

    private protected PipelineGuard.Entry EnterToSample() => Guard is { } guard ? guard.EnterToSample(this) : default;

    // The logits with -infinity for tokens that the grammar excludes; without a grammar, the same span.
    private protected virtual ReadOnlySpan<float> Constrain(LLamaContext context, ReadOnlySpan<float> logits, Grammar? grammar)
    {
        if (grammar is null)
        {
            return logits;
        }

        if (context.Weights.Tokenizer is not { HasTexts: true } tokenizer)
        {
            throw new InvalidOperationException("A grammar needs token texts, but this model's file has no vocabulary.");
        }

        if (_matcher is null || _matched != tokenizer)
        {
            _matcher = new GrammarMatcher(grammar.Compiled, tokenizer);
            _matched = tokenizer;
        }

        return Masked(logits, _matcher);
    }

    // A copy of the logits, -infinity for tokens that the grammar excludes. Valid until the next call.
    private protected ReadOnlySpan<float> Masked(ReadOnlySpan<float> logits, GrammarMatcher matcher)
    {
        if (_constrained.Length < logits.Length)
        {
            _constrained = new float[logits.Length];
        }

        Span<float> constrained = _constrained.AsSpan(0, logits.Length);
        logits.CopyTo(constrained);
        matcher.Mask(constrained);
        return constrained;
    }

    // Advances the grammar by a token sampled from constrained logits.
    private protected virtual void Follow(LLamaToken token) => _matcher?.Accept((int)token);

    /// <summary>Releases the pipeline's resources.</summary>
    public virtual void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    // Index of the largest logit; the lowest on ties.
    internal static int Greatest(ReadOnlySpan<float> logits) => logits.IndexOf(LogitCheck.Max(logits));
}
