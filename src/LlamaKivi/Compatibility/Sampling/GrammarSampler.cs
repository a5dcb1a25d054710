using System.Text;
using System.Text.RegularExpressions;
using LlamaKivi.Native;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Sampling;

/// <summary>Excludes tokens that a grammar does not allow, from the start or from the first match of a trigger.</summary>
internal sealed class GrammarSampler : ICustomSampler
{
    private readonly Grammar _grammar;
    private readonly Tokenizer _tokenizer;
    private readonly Triggers? _triggers;
    private readonly GrammarMatcher _matcher;
    private readonly List<int> _accepted = [];
    private readonly List<byte> _before = [];  // text before the grammar applies
    private bool _applies;

    /// <summary>Creates a sampler.</summary>
    /// <param name="grammar">The grammar.</param>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="triggers">Triggers that activate the grammar; null: it is active from the start.</param>
    public GrammarSampler(Grammar grammar, Tokenizer tokenizer, Triggers? triggers = null)
    {
        (_grammar, _tokenizer, _triggers) = (grammar, tokenizer, triggers);
        _matcher = new GrammarMatcher(grammar.Compiled, tokenizer);
        _applies = triggers is null;
    }

    public string Name => "grammar";

    public void Apply(ref LLamaTokenDataArrayNative tokenData)
    {
        if (!_applies)
        {
            return;
        }

        var logits = new float[_tokenizer.VocabularySize];
        logits.AsSpan().Fill(float.NegativeInfinity);
        foreach (LLamaTokenData candidate in tokenData.Data)
        {
            logits[(int)candidate.ID] = candidate.Logit;
        }

        _matcher.Mask(logits);
        foreach (ref LLamaTokenData candidate in tokenData.Data)
        {
            candidate.Logit = logits[(int)candidate.ID];
        }

        tokenData.Sorted = false;
    }

    public void Accept(LLamaToken token)
    {
        _accepted.Add((int)token);
        if (_applies)
        {
            _matcher.Accept((int)token);
        }
        else
        {
            Wait((int)token);
        }
    }

    public void Reset()
    {
        _matcher.Reset();
        _accepted.Clear();
        _before.Clear();
        _applies = _triggers is null;
    }

    public ICustomSampler Clone()
    {
        var copy = new GrammarSampler(_grammar, _tokenizer, _triggers);
        _accepted.ForEach(token => copy.Accept(token));
        return copy;
    }

    public void Dispose()
    {
    }

    // Searches for a trigger in the text including the new token; the grammar parses the text from the trigger on.
    private void Wait(int token)
    {
        byte[] text = _tokenizer.GetBytes(token, special: true).ToArray();
        if (_triggers!.Tokens.Contains(token))
        {
            Start(text);
            return;
        }

        _before.AddRange(text);
        string before = Encoding.UTF8.GetString([.. _before]);
        foreach (Regex pattern in _triggers.Patterns)
        {
            Match match = Match(pattern, before);
            if (match.Success)
            {
                int at = match.Groups.Values.Skip(1).FirstOrDefault(group => group.Length > 0)?.Index ?? match.Index;
                Start([.. _before[BytesOf(at)..]]);
                return;
            }
        }
    }

    private static Match Match(Regex pattern, string text)
    {
        try
        {
            return pattern.Match(text);
        }
        catch (RegexMatchTimeoutException)
        {
            throw new GrammarException(
                $"The grammar's trigger pattern '{pattern}' takes more than {pattern.MatchTimeout.TotalSeconds} s to match {text.Length} characters. " +
                "Remove nested repetitions from the pattern, or its lookarounds and backreferences.");
        }
    }

    private void Start(byte[] text)
    {
        _matcher.AcceptText(text);
        _before.Clear();
        _applies = true;
    }

    // Byte length of the first characters. Some bytes may not be valid UTF-8, for example in a token that ends inside a character.
    private int BytesOf(int characters)
    {
        ReadOnlySpan<byte> rest = _before.ToArray();
        int bytes = 0;
        while (characters > 0)
        {
            Rune.DecodeFromUtf8(rest[bytes..], out Rune rune, out int read);
            characters -= rune.Utf16SequenceLength;
            bytes += read;
        }

        return bytes;
    }

    /// <summary>Tokens and patterns that activate a grammar.</summary>
    public sealed class Triggers
    {
        public Triggers(ReadOnlySpan<string> patterns, ReadOnlySpan<LLamaToken> tokens)
        {
            foreach (string pattern in patterns)
            {
                Patterns.Add(Anchored($@"\A(?:{pattern})"));
            }

            foreach (LLamaToken token in tokens)
            {
                Tokens.Add((int)token);
            }
        }

        public List<Regex> Patterns { get; } = [];

        public HashSet<int> Tokens { get; } = [];

        // Matching takes time linear in the text. Lookarounds, backreferences and atomic groups need backtracking, which can take forever and has a time limit.
        private static Regex Anchored(string pattern)
        {
            try
            {
                return new Regex(pattern, RegexOptions.CultureInvariant | RegexOptions.NonBacktracking);
            }
            catch (NotSupportedException)
            {
                return new Regex(pattern, RegexOptions.CultureInvariant, TimeSpan.FromSeconds(1));
            }
        }
    }
}
