using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Batched;

/// <summary>Common operations on conversations.</summary>
public static partial class ConversationExtensions
{
    /// <summary>Samples the next token; prompt the conversation with it to continue. If the prompt was given the pipeline, Infer may have sampled the token already.</summary>
    public static LLamaToken Sample(this Conversation conversation, ISamplingPipeline sampler, int offset = 0)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        ArgumentNullException.ThrowIfNull(sampler);
        using PipelineGuard.Entry entry = PipelineGuard.Of(sampler) is { } guard ? guard.EnterToSample(sampler) : default;
        if (offset == 0 && conversation.TryTakeSampled(sampler, out LLamaToken token))
        {
            try
            {
                ((BaseSamplingPipeline)sampler).Commit(token);
                return token;
            }
            catch
            {
                conversation.PutBack(sampler, token);
                throw;
            }
        }

        bool mayChange = sampler.GetType() != typeof(DefaultSamplingPipeline) && sampler.GetType() != typeof(GreedySamplingPipeline);
        return conversation.Sample(offset, mayChange, sampler, static (one, context, index) => one.SampleFrom(context, index));
    }

    /// <summary>Removes the last <paramref name="tokens"/> tokens.</summary>
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

    /// <summary>Removes tokens after the kept ones and shifts the positions of the rest down.</summary>
    /// <param name="conversation">The conversation.</param>
    /// <param name="count">Number of tokens to remove.</param>
    /// <param name="keep">Number of tokens to keep at the start.</param>
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

/// <summary>An operation is not valid in the conversation's current state.</summary>
public class ExperimentalBatchedExecutorException(string message) : RuntimeError(message);

/// <summary>The conversation was prompted while a prompt was queued.</summary>
public class AlreadyPromptedConversationException()
    : ExperimentalBatchedExecutorException("The conversation has a prompt that was not read yet: call Infer() before the next Prompt().");

/// <summary>The conversation was sampled while a prompt was queued or being decoded.</summary>
public class CannotSampleRequiresInferenceException : ExperimentalBatchedExecutorException
{
    /// <summary>Creates the exception for a queued prompt.</summary>
    public CannotSampleRequiresInferenceException()
        : base("The conversation has a prompt that was not read completely yet: call Infer() before Sample().")
    {
    }

    internal CannotSampleRequiresInferenceException(string message)
        : base(message)
    {
    }
}

/// <summary>The conversation was sampled without valid logits.</summary>
public class CannotSampleRequiresPromptException : ExperimentalBatchedExecutorException
{
    /// <summary>Creates the exception for a conversation without a decoded prompt since it was created or modified.</summary>
    public CannotSampleRequiresPromptException()
        : base("The conversation has no logits: call Prompt() and Infer() before Sample().")
    {
    }

    internal CannotSampleRequiresPromptException(string message)
        : base(message)
    {
    }
}

/// <summary>The conversation was modified while a prompt was queued.</summary>
public class CannotModifyWhileRequiresInferenceException()
    : ExperimentalBatchedExecutorException("The conversation has a prompt that was not read yet: call Infer() before changing it.");

/// <summary>The conversation was saved while a prompt was queued.</summary>
public class CannotSaveWhileRequiresInferenceException()
    : ExperimentalBatchedExecutorException("The conversation has a prompt that was not read yet: call Infer() before saving it.");
