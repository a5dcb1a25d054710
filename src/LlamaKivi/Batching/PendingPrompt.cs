using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

/// <summary>Which tokens of a prompt have outputs.</summary>
internal enum PromptOutputs
{
    /// <summary>No token.</summary>
    None,

    /// <summary>The last token.</summary>
    Last,

    /// <summary>All tokens, which requires a single batch.</summary>
    All,
}

/// <summary>A queued prompt or its remainder: tokens, or embeddings of <paramref name="width"/> floats.</summary>
/// <param name="conversation">The conversation.</param>
/// <param name="tokens">Tokens.</param>
/// <param name="embeddings">Embeddings.</param>
/// <param name="width">Embedding length in floats; 0: a prompt of tokens.</param>
/// <param name="outputs">Tokens with outputs.</param>
/// <param name="sampler">Samples the token after the prompt, if the engine can; null: the logits are kept.</param>
internal sealed class PendingPrompt(
    Conversation conversation, ReadOnlyMemory<int> tokens, ReadOnlyMemory<float> embeddings, int width, PromptOutputs outputs, ISamplingPipeline? sampler = null)
{
    public Conversation Conversation => conversation;

    public ReadOnlyMemory<int> Tokens { get; } = tokens;

    public ReadOnlyMemory<float> Embeddings { get; } = embeddings;

    /// <summary>Embedding length in floats; 0: a prompt of tokens.</summary>
    public int Width => width;

    public int Count => width > 0 ? Embeddings.Length / width : Tokens.Length;

    public PromptOutputs Outputs => outputs;

    public ISamplingPipeline? Sampler => sampler;

    /// <summary>Whether a part of the prompt was decoded.</summary>
    public bool IsBegun { get; private init; }

    /// <summary>The prompt for a fork, without the pipeline, because another one may sample the fork's next token.</summary>
    public PendingPrompt For(Conversation other) => new(other, Tokens, Embeddings, width, outputs) { IsBegun = IsBegun };

    public PendingPrompt Without(int count) => width > 0
        ? new(conversation, default, Embeddings[(count * width)..], width, outputs, sampler) { IsBegun = true }
        : new(conversation, Tokens[count..], default, width, outputs, sampler) { IsBegun = true };
}
