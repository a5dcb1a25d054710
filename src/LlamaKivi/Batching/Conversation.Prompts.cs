using System.Runtime.InteropServices;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Batched;

// What a conversation is to read.
public sealed partial class Conversation
{
    /// <summary>Adds a text, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="promptText">The text.</param>
    /// <param name="addBos">Whether the beginning-of-sequence token comes first, if the model uses one.</param>
    /// <param name="special">Whether special tokens written out in the text become those tokens.</param>
    public void Prompt(string promptText, bool addBos = true, bool special = true) =>
        Prompt(Executor.Context.Tokenize(promptText, addBos && TokenCount == 0, special).AsSpan());

    /// <summary>Adds tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="allLogits">Whether to compute the logits of all of them.</param>
    public void Prompt(List<LLamaToken> tokens, bool allLogits = false) => Prompt(CollectionsMarshal.AsSpan(tokens), allLogits);

    /// <summary>Adds tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="tokens">The tokens.</param>
    /// <param name="allLogits">Whether to compute the logits of all of them; they must fit into one batch.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt waits to be read.</exception>
    /// <exception cref="ArgumentException">There are none, or the model has no such tokens.</exception>
    /// <exception cref="ContextOverflowException">The context could not hold the conversation with them even if it held nothing else.</exception>
    public void Prompt(ReadOnlySpan<LLamaToken> tokens, bool allLogits = false)
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

        if (allLogits && tokens.Length > Executor.Context.BatchSize)
        {
            throw new ArgumentException($"All logits of {tokens.Length} tokens are asked for; a batch has {Executor.Context.BatchSize}. Raise BatchSize.", nameof(allLogits));
        }

        CheckFits(tokens.Length);
        int[] ids = new int[tokens.Length];
        for (int i = 0; i < ids.Length; i++)
        {
            ids[i] = (int)tokens[i];
        }

        int strange = ids.AsSpan().IndexOfAnyExceptInRange(0, Executor.Context.Handle.VocabularySize - 1);
        if (strange >= 0)
        {
            throw new ArgumentException($"Token {strange} of the prompt is {ids[strange]}; this model's tokens are 0 to {Executor.Context.Handle.VocabularySize - 1}.", nameof(tokens));
        }

        Executor.Enqueue(this, ids, allLogits);
    }

    /// <summary>Adds a token, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    public void Prompt(LLamaToken token) => Prompt(new ReadOnlySpan<LLamaToken>(in token));

    /// <summary>Adds embeddings in the place of tokens, to be read by the next <see cref="BatchedExecutor.Infer"/>.</summary>
    /// <param name="embeddings">One after the other.</param>
    /// <exception cref="AlreadyPromptedConversationException">A prompt waits to be read.</exception>
    /// <exception cref="ArgumentException">There are none, or no whole ones, or an element is no number.</exception>
    /// <exception cref="ContextOverflowException">The context could not hold the conversation with them even if it held nothing else.</exception>
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
            throw new ArgumentException($"{embeddings.Length} elements are no whole embeddings; this model's have {size} each.", nameof(embeddings));
        }

        for (int i = 0; i < embeddings.Length; i++)
        {
            if (!float.IsFinite(embeddings[i]))
            {
                throw new ArgumentException($"Element {i} of the embeddings is {embeddings[i]}.", nameof(embeddings));
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
