using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Adapts an executor to <see cref="IChatClient"/>.</summary>
/// <remarks>
/// A response: 1. validate the options, 2. wait for the context's turn, 3. render the prompt, 4. decode it and generate text, 5. stop at stop sequences,
/// 6. parse the text into text, thoughts and tool calls. A response holds the context's turn. Clients whose executors share a context share that turn, first come, first served. A StatelessExecutor creates a context per call: its
/// clients are independent, and each serves one response at a time. Any other executor serves one response at a time for all of its clients.
/// </remarks>
internal sealed class ExecutorChatClient(ILLamaExecutor executor, ChatClientOptions clientOptions) : IChatClient
{
    private static readonly ConditionalWeakTable<ILLamaExecutor, ContextGate> Turns = [];

    private readonly ContextGate _own = new(typeof(IChatClient).FullName!);
    // Lazy, because a program's own executor may create its context late.
    private readonly Lazy<ChatModel> _model = new(() => new ChatModel(executor.Context.Weights), LazyThreadSafetyMode.PublicationOnly);
    private readonly CancellationTokenSource _disposal = new();  // never disposed: later calls still read its token

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

    /// <summary>Cancels running and waiting responses, which throw <see cref="ObjectDisposedException"/>. The executor belongs to the caller and stays usable.</summary>
    public void Dispose() => _disposal.Cancel();

    private async IAsyncEnumerable<ChatResponseUpdate> RespondAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var request = new ChatRequest(options, Model.Names, this);
        using ContextTurn turn = await WaitTurnAsync(cancellationToken).ConfigureAwait(false);
        // Cancelling releases the turn even if the consumer never requests another update. The reference is weak, because the token may outlive an abandoned response.
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
        return (pieces, (pieces as InferenceStream)?.Results ?? results);  // the call's own results; the executor's are those of its latest call
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
