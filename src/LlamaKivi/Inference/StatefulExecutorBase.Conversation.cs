using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

// Texts that are given from their start: of chat clients and sessions.
public abstract partial class StatefulExecutorBase
{
    private Conversation? _expected;  // what the next call reads

    /// <summary>Reads a text, skipping the prefix that the cache already holds, and streams its continuation.</summary>
    internal IAsyncEnumerable<string> InferWholeAsync(
        ContextTurn turn, InferenceResults results, PromptText text, IInferenceParams options, CancellationToken cancellationToken)
    {
        int[] tokens = Context.Weights.Tokenizer.Encode(text, Context.Weights.Tokenizer.AddBos);
        return Generation.RunAsync(turn, results, Prompt.Whole(tokens), Complete(options), cancellationToken);
    }

    /// <summary>Reads a conversation from its start into the cache and writes nothing.</summary>
    /// <exception cref="ContextBusyException">Something else uses the context.</exception>
    internal async Task PrefillAsync(Conversation conversation, CancellationToken cancellationToken)
    {
        using ContextTurn turn = TakeTurn(nameof(PrefillPromptAsync));
        await PrefillAsync(turn, ToPrompt(turn, conversation, conversation.Text.Value), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Has the call of <see cref="InferAsync"/> with the text of a conversation read it from its start.</summary>
    /// <exception cref="ContextBusyException">Another conversation waits to be read.</exception>
    internal void Expect(Conversation conversation)
    {
        if (Interlocked.CompareExchange(ref _expected, conversation, null) is not null)
        {
            string running = $"{GetType().Name}.{nameof(InferAsync)}";
            throw new ContextBusyException($"{running} is running: an executor gives one answer at a time. Wait for it, or give each conversation a context of its own.", running);
        }
    }

    /// <summary>Takes back what <see cref="Expect"/> said, if that was not read.</summary>
    internal void Forget(Conversation conversation) => Interlocked.CompareExchange(ref _expected, null, conversation);

    /// <summary>The tokens of a conversation and how many of them are the last message's.</summary>
    private protected virtual (int[] Tokens, int Last) EncodeConversation(PromptText text, ChatHistory history, IHistoryTransform transform, bool addBos)
    {
        Tokenizer tokenizer = Context.Weights.Tokenizer;
        int[] tokens = tokenizer.Encode(text, addBos);
        int at = text.Value.LastIndexOf(history.Messages[^1].Content.Trim(), StringComparison.Ordinal);
        return (tokens, at < 0 ? tokens.Length : tokenizer.Encode(text.From(at), addBos: false).Length);
    }

    // A derived executor may have changed the text on its way.
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

    /// <summary>A conversation to read.</summary>
    /// <param name="Text">As text.</param>
    /// <param name="History">As messages, of which there is at least one.</param>
    /// <param name="Transform">Made the text of the messages.</param>
    /// <param name="HasBegun">Whether it was read from before.</param>
    /// <param name="Follows">Whether it began without messages, and so follows what the executor has read and written before.</param>
    internal sealed record Conversation(PromptText Text, ChatHistory History, IHistoryTransform Transform, bool HasBegun, bool Follows);
}
