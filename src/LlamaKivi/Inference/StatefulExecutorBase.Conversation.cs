using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

// Texts given from their start, by chat clients and sessions.
public abstract partial class StatefulExecutorBase
{
    private Conversation? _expected;  // conversation of the next InferAsync call

    /// <summary>Prefills a text, skipping its cached prefix, and streams its continuation.</summary>
    internal IAsyncEnumerable<string> InferWholeAsync(
        ContextTurn turn, InferenceResults results, PromptText text, IInferenceParams options, CancellationToken cancellationToken)
    {
        int[] tokens = Context.Weights.Tokenizer.Encode(text, Context.Weights.Tokenizer.AddBos);
        return Generation.RunAsync(turn, results, Prompt.Whole(tokens), Complete(options), cancellationToken);
    }

    /// <summary>Prefills a conversation from its start without generating.</summary>
    /// <exception cref="ContextBusyException">Another operation uses the context.</exception>
    internal async Task PrefillAsync(Conversation conversation, CancellationToken cancellationToken)
    {
        using ContextTurn turn = TakeTurn(nameof(PrefillPromptAsync));
        await PrefillAsync(turn, ToPrompt(turn, conversation, conversation.Text.Value), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Announces a conversation: the <see cref="InferAsync"/> call with its text reads it from its start.</summary>
    /// <exception cref="ContextBusyException">Another conversation is already announced.</exception>
    internal void Expect(Conversation conversation)
    {
        if (Interlocked.CompareExchange(ref _expected, conversation, null) is not null)
        {
            string running = $"{GetType().Name}.{nameof(InferAsync)}";
            throw new ContextBusyException($"{running} is running: an executor generates one answer at a time. Wait for it, or use a separate context per conversation.", running);
        }
    }

    /// <summary>Withdraws <see cref="Expect"/> if the conversation has not been read.</summary>
    internal void Forget(Conversation conversation) => Interlocked.CompareExchange(ref _expected, null, conversation);

    /// <summary>Tokens of a conversation, and the number of tokens of the last message.</summary>
    private protected virtual (int[] Tokens, int Last) EncodeConversation(PromptText text, ChatHistory history, IHistoryTransform transform, bool addBos)
    {
        Tokenizer tokenizer = Context.Weights.Tokenizer;
        int[] tokens = tokenizer.Encode(text, addBos);
        int at = text.Value.LastIndexOf(history.Messages[^1].Content.Trim(), StringComparison.Ordinal);
        return (tokens, at < 0 ? tokens.Length : tokenizer.Encode(text.From(at), addBos: false).Length);
    }

    // A derived executor may have changed the text in between.
    private Prompt TakePrompt(ContextTurn turn, string? text)
    {
        Conversation? conversation = Volatile.Read(ref _expected);
        if (conversation is null || text is null || (!ReferenceEquals(conversation.Text.Value, text) && GetType().Assembly == typeof(StatefulExecutorBase).Assembly))
        {
            return Prompt.Next(text is null ? [] : Prepare(text));
        }

        Forget(conversation);
        return ToPrompt(turn, conversation, text);
    }

    private Prompt ToPrompt(ContextTurn turn, Conversation conversation, string text)
    {
        using ContextCall call = Context.Handle.Enter(turn);
        int[]? before = Generation.Text.BeforeConversation;
        Generation.Text.BeforeConversation = before = conversation.HasBegun ? before ?? [] : conversation.Follows ? before ?? [.. Generation.Text.Tokens] : [];
        bool addBos = before.Length == 0 && Context.Weights.Tokenizer.AddBos;
        (int[] tokens, int last) = EncodeConversation(
            text == conversation.Text.Value ? conversation.Text : new PromptText(text), conversation.History, conversation.Transform, addBos);
        return Prompt.Conversation([.. before, .. tokens], last);
    }

    /// <summary>A conversation to prefill.</summary>
    /// <param name="Text">The conversation as text.</param>
    /// <param name="History">The conversation as messages; at least one.</param>
    /// <param name="Transform">Transform that produced the text.</param>
    /// <param name="HasBegun">Whether part of it was read before.</param>
    /// <param name="Follows">Whether it began without messages and therefore follows the executor's earlier text.</param>
    internal sealed record Conversation(PromptText Text, ChatHistory History, IHistoryTransform Transform, bool HasBegun, bool Follows);
}
