using LlamaKivi.Native;

namespace LlamaKivi.Batched;

public static partial class ConversationExtensions
{
    /// <summary>Chooses the next token with a chain of samplers; prompt the conversation with it to go on.</summary>
    public static LLamaToken Sample(this Conversation conversation, SafeLLamaSamplerChainHandle sampler, int offset = 0)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        ArgumentNullException.ThrowIfNull(sampler);
        return conversation.Sample(offset, mayChange: false, sampler, static (one, context, index) => one.Sample(context.NativeHandle, index));
    }
}
