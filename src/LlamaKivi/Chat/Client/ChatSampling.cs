using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>What a call's options mean for inference.</summary>
internal static class ChatSampling
{
    public static DefaultSamplingPipeline CreatePipeline(ChatRequest request, ChatPrompt prompt)
    {
        var defaults = new DefaultSamplingPipeline();
        return new DefaultSamplingPipeline
        {
            Temperature = request.Temperature ?? defaults.Temperature,
            TopP = request.TopP ?? defaults.TopP,
            TopK = request.TopK ?? defaults.TopK,
            FrequencyPenalty = request.FrequencyPenalty ?? 0,
            PresencePenalty = request.PresencePenalty ?? 0,
            Seed = request.Seed ?? defaults.Seed,
            Grammar = request.Answer switch
            {
                { Schema: JsonElement schema } => Grammar.FromJsonSchema(schema),
                ChatResponseFormatJson => Grammar.Json(),
                _ => null,
            },
        };
    }

    public static InferenceParams CreateParameters(ChatRequest request, ChatPrompt prompt, ISamplingPipeline pipeline, IHistoryTransform? transform) => new MarkedInferenceParams
    {
        MaxTokens = request.MaxOutputTokens ?? -1,
        AntiPrompts = [.. request.Stops, .. transform is LLamaTransforms.DefaultHistoryTransform lines ? [$"{lines.UserName}:"] : Array.Empty<string>()],
        SamplingPipeline = pipeline,
        OverflowStrategy = ContextOverflowStrategy.Stop,
        ShownTokens = prompt.ShownTokens,
    };
}
