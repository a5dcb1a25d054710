using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>Adjusts logits before narrowing: bias, penalties on recent tokens, penalties on repeated sequences, excluded tokens.</summary>
internal sealed class LogitAdjustments
{
    private readonly PenaltyWindow _window = new();
    private readonly RepeatedSequences _repeats = new();
    private float[] _adjusted = [];  // [vocabulary]

    /// <summary>Biases added to the logits of tokens.</summary>
    public KeyValuePair<LLamaToken, float>[] Bias { get; set; } = [];

    /// <summary>Adds a token to the text.</summary>
    public void Accept(int token, int penaltyCount, int dryRange)
    {
        _window.Add(token, penaltyCount);
        if (dryRange > 0)
        {
            _repeats.Accept(token, dryRange);
        }
    }

    public void Clear()
    {
        _window.Clear();
        _repeats.Clear();
    }

    /// <summary>The recent tokens, ascending, and their counts.</summary>
    public ReadOnlySpan<TokenCount> Recent => _window.Counts;

    /// <summary>Adjusted logits, [vocabulary size]; the same span if no adjustment applies.</summary>
    public ReadOnlySpan<float> Apply(ReadOnlySpan<float> logits, in Settings settings)
    {
        if (Bias.Length == 0 && settings.RuledOut.Length == 0 && !Penalizes(settings) && settings.Dry.IsOff)
        {
            return logits;
        }

        if (_adjusted.Length < logits.Length)
        {
            _adjusted = new float[logits.Length];
        }

        Span<float> adjusted = _adjusted.AsSpan(0, logits.Length);
        logits.CopyTo(adjusted);
        Apply(new Row(adjusted), settings);
        return adjusted;
    }

    /// <summary>Adjusts the logits of a subset of the vocabulary.</summary>
    /// <param name="logits">Logits, adjusted in place.</param>
    /// <param name="tokens">Token of each logit.</param>
    /// <param name="settings">Adjustments.</param>
    public void Apply(Span<float> logits, ReadOnlySpan<int> tokens, in Settings settings)
    {
        var places = new Dictionary<int, int>(tokens.Length);
        for (int i = 0; i < tokens.Length; i++)
        {
            places[tokens[i]] = i;
        }

        float left = 0;
        Apply(new Subset(logits, places, ref left), settings);
    }

    private bool Penalizes(in Settings settings) => !settings.Penalties.IsOff && _window.Counts.Length > 0;

    private void Apply<TLogits>(TLogits logits, in Settings settings)
        where TLogits : ILogits, allows ref struct
    {
        foreach ((LLamaToken token, float bias) in Bias)
        {
            logits.At((int)token, "LogitBias has") += bias;
        }

        if (Penalizes(settings))
        {
            foreach ((int token, int count) in _window.Counts)
            {
                if (token != settings.Unpenalized)
                {
                    ref float logit = ref logits.At(token, "The accepted tokens have");
                    logit = settings.Penalties.Apply(logit, count);
                }
            }
        }

        if (!settings.Dry.IsOff)
        {
            foreach ((int token, float penalty) in _repeats.Penalties(settings.Dry))
            {
                logits.At(token, "The accepted tokens have") -= penalty;
            }
        }

        foreach (int token in settings.RuledOut)
        {
            logits.At(token, "The end tokens have") = float.NegativeInfinity;
        }
    }

    private interface ILogits
    {
        // who: subject of the error message.
        ref float At(int token, string who);
    }

    // One logit per vocabulary token.
    private readonly ref struct Row(Span<float> logits) : ILogits
    {
        private readonly Span<float> _logits = logits;

        public ref float At(int token, string who)
        {
            if ((uint)token >= (uint)_logits.Length)
            {
                throw new InvalidOperationException(
                    $"{who} token {token}, but there are {_logits.Length} logits. A pipeline serves one vocabulary; reset it when the model changes.");
            }

            return ref _logits[token];
        }
    }

    // Logits of a subset of the vocabulary. Adjustments of other tokens are discarded.
    private readonly ref struct Subset(Span<float> logits, Dictionary<int, int> places, ref float nowhere) : ILogits
    {
        private readonly Span<float> _logits = logits;
        private readonly Dictionary<int, int> _places = places;
        private readonly ref float _nowhere = ref nowhere;

        public ref float At(int token, string who)
        {
            if (_places.TryGetValue(token, out int place))
            {
                return ref _logits[place];
            }

            return ref _nowhere;
        }
    }

    /// <summary>Adjustments.</summary>
    /// <param name="Penalties">Penalties on recent tokens.</param>
    /// <param name="Unpenalized">Token exempt from these penalties; null: none.</param>
    /// <param name="Dry">Penalties on repeated sequences.</param>
    /// <param name="RuledOut">Excluded tokens.</param>
    public readonly record struct Settings(TokenPenalties Penalties, int? Unpenalized, DryPenalties Dry, int[] RuledOut);
}
