using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Tokenization;
using LlamaKivi.Transformers;

namespace LlamaKivi;

public partial class ChatSession
{
    private bool _hasBegun;  // a message was decoded, or a state was loaded

    // Appends messages, removes an old answer, and streams a new answer. A failure restores the history.
    private async IAsyncEnumerable<string> AnswerAsync(
        ChatHistory.Message[] added, ChatHistory.Message? old, IInferenceParams? inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ChatHistory history = History;
        int before = history.Messages.Count;
        history.Messages.AddRange(added);
        if (old is not null)
        {
            Remove(history, old);
        }

        var answer = new StringBuilder();
        bool stands = false;  // whether the history keeps the turn when this method ends
        var stateful = Executor as StatefulExecutorBase;
        StatefulExecutorBase.Conversation? conversation = null;
        IAsyncEnumerator<string>? pieces = null;
        try
        {
            conversation = ToRead(forAnswer: true, before);
            stateful?.Expect(conversation);
            pieces = OutputTransform.TransformAsync(Infer(conversation.Text, inferenceParams, cancellationToken)).GetAsyncEnumerator(cancellationToken);
            while (await MoveNextAsync().ConfigureAwait(false))
            {
                answer.Append(pieces.Current);
                stands = true;  // the consumer may leave the loop here
                yield return pieces.Current;
            }

            if (answer.Length == 0)
            {
                cancellationToken.ThrowIfCancellationRequested();
            }

            stands = true;
        }
        finally
        {
            try
            {
                if (pieces is not null)
                {
                    await pieces.DisposeAsync().ConfigureAwait(false);
                }
            }
            finally
            {
                if (conversation is not null)
                {
                    stateful?.Forget(conversation);
                }

                End();
            }
        }

        async ValueTask<bool> MoveNextAsync()
        {
            stands = false;
            try
            {
                return await pieces.MoveNextAsync().ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                stands = answer.Length > 0;  // cancelled, by an executor that ends its stream instead of throwing
                throw;
            }
        }

        void End()
        {
            try
            {
                if (stands)
                {
                    history.Messages.Add(new ChatHistory.Message(AuthorRole.Assistant, HistoryTransform.TextToHistory(AuthorRole.Assistant, answer.ToString()).Messages[0].Content));
                    _hasBegun = true;
                }
            }
            catch
            {
                stands = false;
                throw;
            }
            finally
            {
                if (!stands)
                {
                    Array.ForEach(added, message => Remove(history, message));
                    history.Messages.AddRange(old is null ? [] : [old]);
                }
            }
        }
    }

    // The conversation that the executor must have cached before the next answer or message.
    private StatefulExecutorBase.Conversation ToRead(bool forAnswer, int messagesBefore) =>
        new(Render(forAnswer), History, HistoryTransform, _hasBegun, Follows: messagesBefore == 0);

    private PromptText Render(bool forAnswer) => HistoryTransform is PromptTemplateTransformer template && template.GetType() == typeof(PromptTemplateTransformer)
        ? template.Render(History, forAnswer && template.WithAssistant, template.ParseSpecialTokens)
        : new PromptText(HistoryTransform.HistoryToText(History));

    // A stateful executor gets the conversation beforehand, through Expect.
    private IAsyncEnumerable<string> Infer(PromptText text, IInferenceParams? inferenceParams, CancellationToken cancellationToken) => Executor is StatelessExecutor stateless
        ? stateless.InferAsync(text, inferenceParams ?? new InferenceParams(), cancellationToken)
        : Executor.InferAsync(text.Value, inferenceParams, cancellationToken);

    // Searches from the end: a history may contain the same message twice.
    private static void Remove(ChatHistory history, ChatHistory.Message message)
    {
        int at = history.Messages.LastIndexOf(message);
        if (at >= 0)
        {
            history.Messages.RemoveAt(at);
        }
    }
}
