using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>Samples an answer under the grammar of all of it, or of calls once one has begun.</summary>
internal sealed class ChatSamplingPipeline(AnswerGrammar grammar, GrammarVocabulary vocabulary, CallReader[] triggers, Func<AnswerParser> createParser) : DefaultSamplingPipeline
{
    private AnswerParser? _parser;  // finds where a call begins
    private StreamingTokenDecoder? _text;
    private GrammarMatcher? _matcher;
    private bool _isRefused;        // the call under way does not follow the grammar

    public override void Reset()
    {
        base.Reset();
        (_parser, _text, _matcher, _isRefused) = (null, null, null, false);
    }

    private protected override ReadOnlySpan<float> Constrain(LLamaContext context, ReadOnlySpan<float> logits, Grammar? unused)
    {
        if (grammar.Answer is not null)
        {
            _matcher ??= new GrammarMatcher(grammar.Answer.Compiled, vocabulary);
        }

        return _matcher is null ? logits : Masked(logits, _matcher);
    }

    private protected override void Follow(LLamaToken token)
    {
        if (_matcher is not null)
        {
            _matcher.Accept((int)token);
        }
        else if (grammar.Calls is not null && !vocabulary.Tokenizer.IsEndOfGeneration((int)token))
        {
            Watch((int)token);
        }
    }

    private void Watch(int token)
    {
        _parser ??= createParser();
        _text ??= new StreamingTokenDecoder(vocabulary.Tokenizer);
        _text.DecodeSpecialTokens = vocabulary.IsShown(token);
        _text.Add(token);
        _parser.Add(_text.Read());
        string? call = _parser.CallSoFar(triggers);
        if (call is not null && !_isRefused)
        {
            var matcher = new GrammarMatcher(grammar.Calls!.Compiled, vocabulary);
            _matcher = matcher.TryAcceptText(System.Text.Encoding.UTF8.GetBytes(call)) ? matcher : null;
        }

        _isRefused = call is not null && _matcher is null;
    }
}
