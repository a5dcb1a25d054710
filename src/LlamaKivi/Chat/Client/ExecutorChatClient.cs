using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>An executor as a chat client of Microsoft.Extensions.AI.</summary>
/// <remarks>
/// A response: 1. options are read, 2. the context's turn is waited for, 3. the prompt is written, 4. the executor reads it and writes text, 5. stop sequences end that text,
/// 6. it is taken apart into text, thoughts and calls of tools. A response holds the context's turn. Clients whose executors share a context share that turn, first come, first served. A StatelessExecutor creates a context per call: its
/// clients are independent, and each gives one response at a time. Any other executor gives one response at a time to all of its clients.
/// </remarks>
internal sealed class ExecutorChatClient(ILLamaExecutor executor, ChatClientOptions clientOptions) : IChatClient
{
    private static readonly ConditionalWeakTable<ILLamaExecutor, ContextGate> Turns = [];

    private readonly ContextGate _own = new(typeof(IChatClient).FullName!);
    // Not before it is asked for: another's executor may have no context until then.
    private readonly Lazy<ChatModel> _model = new(() => new ChatModel(executor.Context.Weights), LazyThreadSafetyMode.PublicationOnly);
    private readonly CancellationTokenSource _disposal = new();  // never disposed of itself: a call that begins then still asks it

    private ChatModel Model => _model.Value;

    public async Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default) =>
        await GetStreamingResponseAsync(messages, options, cancellationToken).ToChatResponseAsync(cancellationToken).ConfigureAwait(false);

    public IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(messages);
        return new SingleReader<ChatResponseUpdate>(StreamAsync(messages, options, cancellationToken));
    }

    private async IAsyncEnumerable<ChatResponseUpdate> StreamAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _disposal.Token);
        IAsyncEnumerator<ChatResponseUpdate> updates = RespondAsync(messages, options, either.Token).GetAsyncEnumerator(CancellationToken.None);
        await using ConfiguredAsyncDisposable ending = updates.ConfigureAwait(false);
        while (true)
        {
            try
            {
                if (!await updates.MoveNextAsync().ConfigureAwait(false))
                {
                    break;
                }
            }
            catch (OperationCanceledException e) when (cancellationToken.IsCancellationRequested)
            {
                throw new OperationCanceledException(e.Message, e, cancellationToken);
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException && _disposal.IsCancellationRequested)
            {
#pragma warning disable MA0054 // ObjectDisposedException takes the object's name or an inner exception, not both.
                throw new ObjectDisposedException(typeof(IChatClient).FullName);
#pragma warning restore MA0054
            }

            yield return updates.Current;
        }
    }

    public object? GetService(Type serviceType, object? serviceKey = null)
    {
        ArgumentNullException.ThrowIfNull(serviceType);
        return serviceKey is not null ? null
            : serviceType == typeof(ChatClientMetadata) ? executor.Context is null ? ChatModel.Unknown : Model.Metadata
            : serviceType.IsInstanceOfType(executor) ? executor
            : serviceType.IsInstanceOfType(this) ? this
            : null;
    }

    /// <summary>Cancels the client's responses; they and those that wait throw <see cref="ObjectDisposedException"/>. The executor is the caller's, and goes on.</summary>
    public void Dispose() => _disposal.Cancel();

    private async IAsyncEnumerable<ChatResponseUpdate> RespondAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var request = new ChatRequest(options, Model.Names, this);
        using ContextTurn turn = await WaitTurnAsync(cancellationToken).ConfigureAwait(false);
        // Who waits does not wait for a reader that asks for no more. Weakly: the token lives longer than a response that nobody reads to its end.
        using CancellationTokenRegistration ending = cancellationToken.UnsafeRegister(
            static turn => (((WeakReference<ContextTurn>)turn!).TryGetTarget(out ContextTurn? target) ? target : null)?.Dispose(), new WeakReference<ContextTurn>(turn));
        ChatPrompt prompt = ChatPrompt.Write(Model.Templates, clientOptions, messages, request, cancellationToken);
        using DefaultSamplingPipeline pipeline = ChatSampling.CreatePipeline(Model, request, prompt);
        InferenceParams parameters = ChatSampling.CreateParameters(request, prompt, pipeline, clientOptions.HistoryTransform);
        var response = new ResponseWriter(Model, request, prompt);
        (IAsyncEnumerable<string> pieces, InferenceResults results) = Infer(turn, prompt.Text, parameters, cancellationToken);
        IAsyncEnumerable<string> text = (clientOptions.OutputTransform ?? new LLamaTransforms.EmptyTextOutputStreamTransform()).TransformAsync(pieces);
        await foreach (string piece in new StopStrings(parameters.AntiPrompts).UpToFirst(text, cancellationToken).ConfigureAwait(false))
        {
            foreach (ChatResponseUpdate update in response.Add(piece))
            {
                yield return update;
            }

            if (response.IsComplete)
            {
                break;
            }
        }

        foreach (ChatResponseUpdate update in response.Finish(results))
        {
            yield return update;
        }
    }

    private (IAsyncEnumerable<string> Pieces, InferenceResults Results) Infer(ContextTurn turn, PromptText prompt, InferenceParams parameters, CancellationToken cancellationToken)
    {
        var results = new InferenceResults();
        IAsyncEnumerable<string> pieces = executor switch
        {
            StatefulExecutorBase stateful => stateful.InferWholeAsync(turn, results, prompt, parameters, cancellationToken),
            StatelessExecutor stateless => stateless.InferAsync(prompt, parameters, cancellationToken),
            _ => executor.InferAsync(prompt.Value, parameters, cancellationToken),
        };
        return (pieces, (pieces as InferenceStream)?.Results ?? results);  // the call's own; of the executor are those of whichever call was last
    }

    private Task<ContextTurn> WaitTurnAsync(CancellationToken cancellationToken)
    {
        const string Operation = $"{nameof(IChatClient)}.{nameof(GetResponseAsync)}";
        return executor switch
        {
            StatefulExecutorBase => executor.Context.Handle.WaitTurnAsync(Operation, cancellationToken),
            StatelessExecutor => _own.WaitTurnAsync(Operation, cancellationToken),
            _ => Turns.GetValue(executor, static executor => new ContextGate(executor.GetType().FullName!)).WaitTurnAsync(Operation, cancellationToken),
        };
    }
}
