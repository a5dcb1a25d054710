using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

/// <summary>What is often done with conversations.</summary>
public static partial class ConversationExtensions
{
    /// <summary>Chooses the next token; prompt the conversation with it to go on.</summary>
    public static LLamaToken Sample(this Conversation conversation, ISamplingPipeline sampler, int offset = 0)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        ArgumentNullException.ThrowIfNull(sampler);
        using PipelineGuard.Entry entry = PipelineGuard.Of(sampler) is { } guard ? guard.EnterToSample(sampler) : default;
        bool mayChange = sampler.GetType() != typeof(DefaultSamplingPipeline) && sampler.GetType() != typeof(GreedySamplingPipeline);
        return conversation.Sample(offset, mayChange, sampler, static (one, context, index) => one.SampleFrom(context, index));
    }

    /// <summary>Forgets the last tokens.</summary>
    public static void Rewind(this Conversation conversation, int tokens)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        ArgumentOutOfRangeException.ThrowIfNegative(tokens);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(tokens, conversation.TokenCount);
        conversation.Modify((end, kv) =>
        {
            kv.Remove(end.Value - tokens, tokens);
            return end.Value - tokens;
        });
    }

    /// <summary>Forgets tokens behind the first ones, and moves what follows down.</summary>
    /// <param name="conversation">The conversation.</param>
    /// <param name="count">Tokens to forget.</param>
    /// <param name="keep">First tokens to keep.</param>
    public static void ShiftLeft(this Conversation conversation, int count, int keep)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfNegative(keep);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(keep + count, conversation.TokenCount);
        conversation.Modify((end, kv) =>
        {
            kv.Remove(keep, count);
            kv.Add(keep + count, end, -count);
            return end.Value - count;
        });
    }
}

/// <summary>A conversation was used in an order that is not possible.</summary>
public class ExperimentalBatchedExecutorException(string message) : RuntimeError(message);

/// <summary>A conversation was prompted while a prompt waits to be read.</summary>
public class AlreadyPromptedConversationException()
    : ExperimentalBatchedExecutorException("The conversation has a prompt that was not read yet: call Infer() before the next Prompt().");

/// <summary>A conversation was sampled from while a prompt waits to be read, or is being read.</summary>
public class CannotSampleRequiresInferenceException : ExperimentalBatchedExecutorException
{
    /// <summary>Makes the exception of a prompt that waits.</summary>
    public CannotSampleRequiresInferenceException()
        : base("The conversation has a prompt that was not read yet, or not to its end: call Infer() before Sample().")
    {
    }

    internal CannotSampleRequiresInferenceException(string message)
        : base(message)
    {
    }
}

/// <summary>A conversation was sampled from that has nothing to sample from.</summary>
public class CannotSampleRequiresPromptException : ExperimentalBatchedExecutorException
{
    /// <summary>Makes the exception of a conversation of which nothing was read since it was made or changed.</summary>
    public CannotSampleRequiresPromptException()
        : base("The conversation has no logits: call Prompt() and Infer() before Sample().")
    {
    }

    internal CannotSampleRequiresPromptException(string message)
        : base(message)
    {
    }
}

/// <summary>A conversation was changed while a prompt waits to be read.</summary>
public class CannotModifyWhileRequiresInferenceException()
    : ExperimentalBatchedExecutorException("The conversation has a prompt that was not read yet: call Infer() before changing it.");

/// <summary>A conversation was saved while a prompt waits to be read.</summary>
public class CannotSaveWhileRequiresInferenceException()
    : ExperimentalBatchedExecutorException("The conversation has a prompt that was not read yet: call Infer() before saving it.");
