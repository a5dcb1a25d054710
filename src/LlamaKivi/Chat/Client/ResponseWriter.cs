using System.Text;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Converts generated text to the updates of one response.</summary>
internal sealed class ResponseWriter
{
    /// <summary>Name of the last update's additional property with the stop sequence that ended the text.</summary>
    public const string StopSequenceName = "stop_sequence";

    private readonly ChatModel _model;
    private readonly ChatRequest _request;
    private readonly ChatPrompt _prompt;
    private readonly AnswerParser _parser;
    private readonly string _id = Guid.NewGuid().ToString("N");
    private readonly DateTimeOffset _created = DateTimeOffset.UtcNow;
    private readonly StringBuilder _text = new();
    private readonly StringBuilder _thoughts = new();
    private int _logprobsGiven;
    private readonly CallStream? _call;
    private bool _hasCalls;

    public ResponseWriter(ChatModel model, ChatRequest request, ChatPrompt prompt)
    {
        (_model, _request, _prompt) = (model, request, prompt);
        _parser = new AnswerParser(prompt.Format, request.Tools, prompt.OpenThought);
        _call = request.Sampling?.StreamsCalls == true ? new CallStream(_text) : null;
    }

    /// <summary>Whether the rest of the generated text is ignored.</summary>
    public bool IsComplete => _hasCalls && !_request.AllowsManyCalls;

    /// <summary>Adds a piece of text and returns the updates that it completes.</summary>
    public IEnumerable<ChatResponseUpdate> Add(string piece)
    {
        _text.Append(piece);
        foreach (ChatResponseUpdate update in Updates(_parser.Add(piece)))
        {
            yield return update;
        }

        if (!IsComplete && _call?.Read(_parser) is { } delta)
        {
            yield return Update(delta);
        }
    }

    /// <summary>Ends the text and returns the last updates.</summary>
    /// <param name="results">Results of the inference.</param>
    /// <param name="stop">The stop string at which the text ended; null: none.</param>
    public IEnumerable<ChatResponseUpdate> Finish(InferenceResults results, string? stop)
    {
        bool isLimited = results.StopReason is StopReason.MaxTokens or StopReason.ContextFull;
        bool isStopped = stop is not null && _request.Stops.Contains(stop, StringComparer.Ordinal);
        if (!IsComplete)
        {
            // The arguments of a call under way may have been streamed, so they are no text at any end.
            bool isCut = isLimited || isStopped || _parser.CallUnderWay() is not null;
            foreach (ChatResponseUpdate update in Updates(isCut ? _parser.FinishCut() : _parser.Finish()))
            {
                yield return update;
            }
        }

        // The limit counts before calls: further calls or text may be missing.
        ChatResponseUpdate last = Update(new UsageContent(Usage(results)));
        last.FinishReason = isLimited && !IsComplete ? ChatFinishReason.Length : _hasCalls ? ChatFinishReason.ToolCalls : ChatFinishReason.Stop;
        if (isStopped)
        {
            (last.AdditionalProperties ??= [])[StopSequenceName] = stop;
        }

        AddLogprobs(last, results);
        yield return last;
    }

    /// <summary>Adds to an update, as the property "logprobs", the log probabilities of the tokens of the text so far that earlier updates did not have.</summary>
    public void AddLogprobs(ChatResponseUpdate update, InferenceResults results)
    {
        if (_request.TopLogprobs is null)
        {
            return;
        }

        // The engine may be ahead of the text that was read.
        TokenLogprobs[] logprobs = [.. results.LogprobsFrom(_logprobsGiven).TakeWhile(token => token.TextEnd <= _text.Length || update.FinishReason is not null)];
        _logprobsGiven += logprobs.Length;
        if (logprobs.Length > 0)
        {
            (update.AdditionalProperties ??= [])["logprobs"] = logprobs;
        }
    }

    private IEnumerable<ChatResponseUpdate> Updates(List<AIContent> contents)
    {
        foreach (AIContent content in contents)
        {
            if (content is TextReasoningContent thought)
            {
                _thoughts.Append(thought.Text);
                if (!_request.GivesThoughts)
                {
                    continue;
                }
            }

            _hasCalls |= content is FunctionCallContent;
            if (content is FunctionCallContent call && _call?.Finish(call) is { } end)
            {
                yield return Update(end.Last);
                yield return Update(end.Content);
            }
            else
            {
                yield return Update(content);
            }

            if (IsComplete)
            {
                yield break;
            }
        }
    }

    private UsageDetails Usage(InferenceResults results)
    {
        InferenceTimings timings = results.Timings;
        int input = timings.PromptTokens + results.CachedTokens;
        int output = timings.GeneratedTokens;
        if (input == 0)
        {
            // A program's own executor reports no counts.
            (input, output) = (Count(_prompt.Text.Value, special: true), Count(_text.ToString(), special: true));
        }

        return new UsageDetails
        {
            InputTokenCount = input,
            CachedInputTokenCount = results.CachedTokens,
            OutputTokenCount = output,
            ReasoningTokenCount = Math.Min(Count(_thoughts.ToString(), special: false), output),
            TotalTokenCount = input + output,
        };
    }

    private int Count(string text, bool special)
    {
        Tokenizer tokenizer = _model.Weights.Tokenizer;
        return text.Length > 0 && tokenizer.HasTexts ? tokenizer.Encode(text, addBos: special && tokenizer.AddBos, parseSpecial: special).Length : 0;
    }

    private ChatResponseUpdate Update(CallDelta delta)
    {
        ChatResponseUpdate update = Update();
        update.RawRepresentation = delta;
        return update;
    }

    private ChatResponseUpdate Update(params IList<AIContent> contents) => new(ChatRole.Assistant, contents)
    {
        ResponseId = _id,
        MessageId = _id,
        ModelId = _model.Metadata.DefaultModelId,
        CreatedAt = _created,
    };
}
