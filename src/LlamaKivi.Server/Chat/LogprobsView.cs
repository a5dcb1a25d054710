using System.Text;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>Log probabilities of a choice's tokens, as OpenAI's chat API has them.</summary>
internal sealed record LogprobsView(LogprobView[] Content)
{
    /// <summary>The log probabilities of an update; null: it has none.</summary>
    public static LogprobsView? Of(ChatResponseUpdate update, Tokenizer tokenizer) =>
        update.AdditionalProperties?.GetValueOrDefault("logprobs") is TokenLogprobs[] tokens ? new LogprobsView([.. tokens.Select(token => Of(token, tokenizer))]) : null;

    private static LogprobView Of(TokenLogprobs token, Tokenizer tokenizer)
    {
        (string text, int[] bytes) = Text(tokenizer, token.Token);
        return new LogprobView(text, Finite(token.Logprob), bytes, [.. token.Top.Select(top =>
        {
            (string topText, int[] topBytes) = Text(tokenizer, top.Token);
            return new TopLogprobView(topText, Finite(top.Logprob), topBytes);
        })]);
    }

    private static (string Text, int[] Bytes) Text(Tokenizer tokenizer, LLamaToken token)
    {
        ReadOnlySpan<byte> bytes = tokenizer.GetBytes((int)token, special: true).Span;
        return (Encoding.UTF8.GetString(bytes), [.. bytes.ToArray().Select(b => (int)b)]);
    }

    // JSON has no infinity; OpenAI writes -9999 for a probability of 0.
    private static float Finite(float logprob) => Math.Max(logprob, -9999);
}

internal sealed record LogprobView(string Token, float Logprob, int[] Bytes, TopLogprobView[] TopLogprobs);

internal sealed record TopLogprobView(string Token, float Logprob, int[] Bytes);
