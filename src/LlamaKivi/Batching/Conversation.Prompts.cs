using System.Runtime.InteropServices;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

// Queueing prompts.
public sealed partial class Conversation
{
    /// <summary>Queues a text for the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="promptText">The text.</param>
    /// <param name="addBos">Whether to prepend the beginning-of-sequence token, if the model uses one.</param>
    /// <param name="special">Whether special tokens spelled out in the text are parsed as those tokens.</param>
    public void Prompt(string promptText, bool addBos = true, bool special = true) =>
        Prompt(Executor.Context.Tokenize(promptText, addBos && TokenCount == 0, special).AsSpan());

    /// <summary>Queues tokens for the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="allLogits">Whether to compute the logits of all tokens instead of the last; they must then fit in one batch.</param>
    public void Prompt(List<LLamaToken> tokens, bool allLogits = false) => Prompt(CollectionsMarshal.AsSpan(tokens), allLogits);

    /// <summary>Queues tokens for the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="allLogits">Whether to compute the logits of all tokens instead of the last; they must then fit in one batch.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt is already queued.</exception>
    /// <exception cref="ArgumentException">There are no tokens, or a token is not in the model's vocabulary.</exception>
    /// <exception cref="ContextOverflowException">The conversation would exceed the context size, even alone in the context.</exception>
    public void Prompt(ReadOnlySpan<LLamaToken> tokens, bool allLogits = false)
    {
        Prompt(MemoryMarshal.Cast<LLamaToken, int>(tokens), allLogits ? PromptOutputs.All : PromptOutputs.Last, null);
    }

    /// <summary>Queues tokens for the next <see cref="BatchedExecutor.Infer"/>, which samples the token after them with a pipeline.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="sampler">
    /// The pipeline. The engine samples, with the pipeline's state at the time of the call, if its settings allow it; <see cref="ConversationExtensions.Sample(Conversation, ISamplingPipeline, int)"/>
    /// then returns the token, and the logits are not available. Pass the same pipeline to both. For a pipeline with state that several prompts of a batch have, the logits are kept instead,
    /// and the pipeline draws from them in the order of the calls to Sample.
    /// </param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt is already queued.</exception>
    /// <exception cref="ArgumentException">There are no tokens, or a token is not in the model's vocabulary.</exception>
    /// <exception cref="ContextOverflowException">The conversation would exceed the context size, even alone in the context.</exception>
    public void Prompt(ReadOnlySpan<LLamaToken> tokens, ISamplingPipeline sampler)
    {
        ArgumentNullException.ThrowIfNull(sampler);
        Prompt(MemoryMarshal.Cast<LLamaToken, int>(tokens), PromptOutputs.Last, sampler);
    }

    /// <summary>Queues a token for the next <see cref="BatchedExecutor.Infer"/>, which samples the token after it with a pipeline.</summary>
    /// <param name="token">The token.</param>
    /// <param name="sampler">As for several tokens.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt is already queued.</exception>
    /// <exception cref="ArgumentException">There are no tokens, or a token is not in the model's vocabulary.</exception>
    /// <exception cref="ContextOverflowException">The conversation would exceed the context size, even alone in the context.</exception>
    public void Prompt(LLamaToken token, ISamplingPipeline sampler) => Prompt(new ReadOnlySpan<LLamaToken>(in token), sampler);

    internal void Prompt(ReadOnlySpan<int> tokens, PromptOutputs outputs, ISamplingPipeline? sampler)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (RequiresInference)
        {
            throw new AlreadyPromptedConversationException();
        }

        if (tokens.IsEmpty)
        {
            throw new ArgumentException("The prompt has no tokens.", nameof(tokens));
        }

        if (outputs == PromptOutputs.All && tokens.Length > Executor.Context.BatchSize)
        {
            throw new ArgumentException($"Logits were requested for all {tokens.Length} tokens; a batch has at most {Executor.Context.BatchSize}. Raise BatchSize.", nameof(tokens));
        }

        CheckFits(tokens.Length);
        int[] ids = tokens.ToArray();
        int strange = ids.AsSpan().IndexOfAnyExceptInRange(0, Executor.Context.Handle.VocabularySize - 1);
        if (strange >= 0)
        {
            throw new ArgumentException($"Token {strange} of the prompt is {ids[strange]}; this model's tokens are 0 to {Executor.Context.Handle.VocabularySize - 1}.", nameof(tokens));
        }

        Executor.Enqueue(this, ids, outputs, sampler);
    }

    /// <summary>Queues a token for the next <see cref="BatchedExecutor.Infer"/>.</summary>
    public void Prompt(LLamaToken token) => Prompt(new ReadOnlySpan<LLamaToken>(in token));

    /// <summary>Queues embeddings instead of tokens for the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="embeddings">Embeddings, [count, embedding length].</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt is already queued.</exception>
    /// <exception cref="ArgumentException">The length is 0 or not a multiple of the embedding length, or an element is not finite.</exception>
    /// <exception cref="ContextOverflowException">The conversation would exceed the context size, even alone in the context.</exception>
    public void Prompt(ReadOnlySpan<float> embeddings)
    {
        ObjectDisposedException.ThrowIf(IsDisposed, this);
        if (RequiresInference)
        {
            throw new AlreadyPromptedConversationException();
        }

        int size = Executor.Context.EmbeddingSize;
        if (embeddings.IsEmpty || embeddings.Length % size != 0)
        {
            throw new ArgumentException($"{embeddings.Length} is not a multiple of the model's embedding length {size}.", nameof(embeddings));
        }

        for (int i = 0; i < embeddings.Length; i++)
        {
            if (!float.IsFinite(embeddings[i]))
            {
                throw new ArgumentException($"Element {i} of the embeddings is {embeddings[i]}; it must be finite.", nameof(embeddings));
            }
        }

        CheckFits(embeddings.Length / size);
        Executor.Enqueue(this, embeddings.ToArray());
    }

    private void CheckFits(int tokens)
    {
        if (TokenCount + (long)tokens > Executor.Context.ContextSize)
        {
            throw new ContextOverflowException(
                $"The conversation has {TokenCount} tokens and the prompt {tokens}; the context holds {Executor.Context.ContextSize}. Raise ContextSize, or make room with Rewind or ShiftLeft.");
        }
    }
}
