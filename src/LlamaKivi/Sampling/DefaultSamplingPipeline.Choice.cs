using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

// Selection of a token: adjust logits, narrow, sample.
public partial class DefaultSamplingPipeline
{
    private readonly CandidateSet _candidates = new();
    private double? _mu;  // Mirostat's upper bound on the surprise, in bits

    /// <inheritdoc/>
    public override LLamaToken Sample(ReadOnlySpan<float> logits)
    {
        using PipelineGuard.Entry entry = EnterToSample();
        return Choose(logits, null, null);
    }

    /// <summary>Forgets the accepted tokens and restarts the random numbers at <see cref="Seed"/>.</summary>
    public override void Reset()
    {
        using PipelineGuard.Entry entry = Enter();
        BeginText();
        _adjustments.Clear();
        _mu = null;
        _random = new Xoshiro256(Seed);
    }

    /// <inheritdoc/>
    /// <exception cref="ArgumentOutOfRangeException">The token is negative.</exception>
    public override void Accept(LLamaToken token)
    {
        ArgumentOutOfRangeException.ThrowIfNegative((int)token, nameof(token));
        using PipelineGuard.Entry entry = Enter();
        _adjustments.Accept((int)token, PenaltyCount, DryMultiplier > 0 ? DryRange : 0);
    }

    // A derived class may override only the overload that takes LLamaSharp's handle.
    internal override LLamaToken SampleFrom(LLamaContext context, int index) =>
        GetType() == typeof(DefaultSamplingPipeline) ? Choose(context, index) : base.SampleFrom(context, index);

    internal LLamaToken Choose(ReadOnlySpan<float> logits, int[]? endTokens, int? newline)
    {
        ReadOnlySpan<float> adjusted = _adjustments.Apply(logits, Adjustments(endTokens, newline));
        int token;
        if (Temperature <= 0)
        {
            token = Greatest(adjusted);
        }
        else
        {
            LogitCheck.Max(adjusted);
            token = Mirostat == MirostatType.Disable ? Draw(adjusted) : DrawMirostat(adjusted);
        }

        Accept(token);
        return token;
    }

    private LLamaToken Choose(LLamaContext context, int index)
    {
        using PipelineGuard.Entry entry = EnterToSample();
        LLamaToken token = Choose(Constrain(context, context.Logits(index), Grammar), context.EndTokens, context.Weights.Tokenizer.NewlineId);
        Follow(token);
        return token;
    }

    private LogitAdjustments.Settings Adjustments(int[]? endTokens, int? newline) => new(
        new TokenPenalties(RepeatPenalty, FrequencyPenalty, PresencePenalty),
        PenalizeNewline ? null : newline,
        new DryPenalties(DryMultiplier, DryBase, DryAllowedLength, DryRange, DryBreakers),
        EndsToPrevent(endTokens));

    private int Draw(ReadOnlySpan<float> logits)
    {
        Narrow(logits);
        if (XtcProbability > 0 && XtcThreshold <= 0.5f && _random.NextDouble() < XtcProbability)
        {
            _candidates.ExcludeTopChoices(XtcThreshold, MinKeep);
        }

        return _candidates.Draw(Temperature, _random.NextDouble());
    }

    private int DrawMirostat(ReadOnlySpan<float> logits)
    {
        _candidates.Select(logits, 0, sort: true);
        double mu = _mu ?? 2 * MirostatTau;
        if (Mirostat == MirostatType.Mirostat)
        {
            _candidates.MirostatTopK(mu, logits.Length, Temperature);
        }
        else
        {
            _candidates.KeepLessSurprising(mu, Temperature);
        }

        int token = _candidates.Draw(Temperature, _random.NextDouble(), out double probability);
        _mu = mu - MirostatEta * (-Math.Log2(probability) - MirostatTau);
        return token;
    }

    private int[] EndsToPrevent(int[]? endTokens)
    {
        if (!PreventEOS)
        {
            return [];
        }

        return endTokens ?? throw new InvalidOperationException(
            "PreventEOS needs the model's end tokens. Sample from a context of a model with a vocabulary, or exclude the tokens in LogitBias.");
    }

    private void Narrow(ReadOnlySpan<float> logits)
    {
        _candidates.Select(logits, TopK, sort: TopP < 1 || MinKeep > 1 || XtcProbability > 0);
        if (TopNSigma > 0)
        {
            _candidates.TopNSigma(TopNSigma);
        }

        if (TypicalP < 1)
        {
            _candidates.Typical(TypicalP, MinKeep);
        }

        if (TopP < 1)
        {
            _candidates.TopP(TopP, MinKeep);
        }

        if (MinP > 0)
        {
            _candidates.MinP(MinP, MinKeep);
        }
    }
}
