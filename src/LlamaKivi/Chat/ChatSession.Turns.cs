using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Tokenization;
using LlamaKivi.Transformers;

namespace LlamaKivi;

public partial class ChatSession
{
    private bool _hasBegun;  // a message was read, or a state was loaded

    // Streams the answer to the history with new messages and without an old answer at its end. What fails puts the history back.
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
        bool stands = false;  // whether the turn stays in the history when this method is left
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
                stands = true;  // the reader may leave
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
                stands = answer.Length > 0;  // stopped, as by an executor that ends its answer then
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

    // What the executor has to hold before the next answer or message.
    private StatefulExecutorBase.Conversation ToRead(bool forAnswer, int messagesBefore) =>
        new(Render(forAnswer), History, HistoryTransform, _hasBegun, Follows: messagesBefore == 0);

    private PromptText Render(bool forAnswer) => HistoryTransform is PromptTemplateTransformer template && template.GetType() == typeof(PromptTemplateTransformer)
        ? template.Render(History, forAnswer && template.WithAssistant, template.ParseSpecialTokens)
        : new PromptText(HistoryTransform.HistoryToText(History));

    // A stateful executor is told of the conversation before.
    private IAsyncEnumerable<string> Infer(PromptText text, IInferenceParams? inferenceParams, CancellationToken cancellationToken) => Executor is StatelessExecutor stateless
        ? stateless.InferAsync(text, inferenceParams ?? new InferenceParams(), cancellationToken)
        : Executor.InferAsync(text.Value, inferenceParams, cancellationToken);

    // The last one: the same message may stand in a history twice.
    private static void Remove(ChatHistory history, ChatHistory.Message message)
    {
        int at = history.Messages.LastIndexOf(message);
        if (at >= 0)
        {
            history.Messages.RemoveAt(at);
        }
    }
}
