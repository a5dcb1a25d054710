using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;

namespace LlamaKivi;

/// <summary>Converts a call's options to sampling and inference settings.</summary>
internal static class ChatSampling
{
    /// <summary>Creates the sampling pipeline of one answer.</summary>
    /// <exception cref="GrammarException">A required schema cannot be enforced; the message names the place.</exception>
    /// <exception cref="OperationCanceledException">The call was cancelled.</exception>
    public static DefaultSamplingPipeline CreatePipeline(ChatModel model, ChatRequest request, ChatPrompt prompt, CancellationToken cancellationToken)
    {
        using StepCancellation.Scope scope = StepCancellation.Enter(cancellationToken);
        var defaults = new DefaultSamplingPipeline();
        AnswerGrammar grammar = Grammars(model, request, prompt);
        return new ChatSamplingPipeline(grammar, prompt.Vocabulary, prompt.Format.OwnReaders, () => new AnswerParser(prompt.Format, request.Tools, prompt.OpenThought))
        {
            Temperature = request.Temperature ?? defaults.Temperature,
            TopP = request.TopP ?? defaults.TopP,
            TopK = request.TopK ?? defaults.TopK,
            FrequencyPenalty = request.FrequencyPenalty ?? 0,
            PresencePenalty = request.PresencePenalty ?? 0,
            MinP = request.Sampling?.MinP ?? defaults.MinP,
            RepeatPenalty = request.Sampling?.RepeatPenalty ?? defaults.RepeatPenalty,
            LogitBias = request.Sampling?.LogitBias ?? defaults.LogitBias,
            Seed = request.Seed ?? defaults.Seed,
        };
    }

    private static AnswerGrammar Grammars(ChatModel model, ChatRequest request, ChatPrompt prompt)
    {
        try
        {
            return model.Grammars.Prepare(AnswerGrammar.Of(request, prompt));
        }
        catch (GrammarException e) when (request.Answer is null)
        {
            ErrorOption.Mark(e, nameof(request.Tools));
            throw;
        }
    }

    public static InferenceParams CreateParameters(ChatRequest request, ChatPrompt prompt, ISamplingPipeline pipeline, IHistoryTransform? transform) => new MarkedInferenceParams
    {
        MaxTokens = request.MaxOutputTokens ?? -1,
        AntiPrompts = [.. request.Stops, .. transform is LLamaTransforms.DefaultHistoryTransform lines ? [$"{lines.UserName}:"] : Array.Empty<string>()],
        SamplingPipeline = pipeline,
        OverflowStrategy = ContextOverflowStrategy.Stop,
        TopLogprobs = request.TopLogprobs,
        PrefixKey = request.PrefixKey,
        Slot = request.Slot,
        ShownTokens = prompt.Vocabulary.Shown,
        Prompt = prompt.Text,
    };
}
