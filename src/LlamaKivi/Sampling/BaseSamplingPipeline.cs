using LlamaKivi.Native;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling;

/// <summary>A start for pipelines: <see cref="CreateChain"/> or the choice from a row of logits is left to write.</summary>
/// <inheritdoc cref="ISamplingPipeline" path="/remarks"/>
public abstract partial class BaseSamplingPipeline : ISamplingPipeline
{
    private readonly PipelineGuard _guard = new();
    private GrammarMatcher? _matcher;
    private Tokenizer? _matched;  // the vocabulary the matcher is for
    private float[] _constrained = [];

    // Null: any number of calls may use the pipeline at once.
    internal virtual PipelineGuard? Guard => _guard;

    LLamaToken ISamplingPipeline.SampleFrom(LLamaContext context, int index) => SampleFrom(context, index);

    /// <inheritdoc cref="ISamplingPipeline.SampleFrom"/>
    internal virtual partial LLamaToken SampleFrom(LLamaContext context, int index);

    /// <summary>Begins a text: what a grammar has seen of the last one is forgotten.</summary>
    internal void BeginText()
    {
        using PipelineGuard.Entry entry = Enter();
        _matcher?.Reset();
    }

    private protected PipelineGuard.Entry Enter() => Guard is { } guard ? guard.Enter(this) : default;

    private protected PipelineGuard.Entry EnterToSample() => Guard is { } guard ? guard.EnterToSample(this) : default;

    // The logits with -infinity for the tokens that the grammar does not allow next; the given ones without a grammar.
    private protected ReadOnlySpan<float> Constrain(LLamaContext context, ReadOnlySpan<float> logits, Grammar? grammar)
    {
        if (grammar is null)
        {
            return logits;
        }

        if (context.Weights.Tokenizer is not { HasTexts: true } tokenizer)
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
    private protected void Follow(LLamaToken token) => _matcher?.Accept((int)token);

    /// <summary>Frees what the pipeline holds.</summary>
    public virtual void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    // The greatest logit; equal ones: the lowest index.
    internal static int Greatest(ReadOnlySpan<float> logits) => logits.IndexOf(LogitCheck.Max(logits));
}
