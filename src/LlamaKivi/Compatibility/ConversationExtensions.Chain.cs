using LlamaKivi.Native;

namespace LlamaKivi.Batched;

public static partial class ConversationExtensions
{
    /// <summary>Samples the next token with a sampler chain; prompt the conversation with it to continue.</summary>
    public static LLamaToken Sample(this Conversation conversation, SafeLLamaSamplerChainHandle sampler, int offset = 0)
    {
        ArgumentNullException.ThrowIfNull(conversation);
        ArgumentNullException.ThrowIfNull(sampler);
        return conversation.Sample(offset, mayChange: false, sampler, static (one, context, index) => one.Sample(context.NativeHandle, index));
    }
}
