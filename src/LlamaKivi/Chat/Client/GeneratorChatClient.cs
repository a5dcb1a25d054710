using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>A chat client of Microsoft.Extensions.AI over a generator of text.</summary>
/// <remarks>
/// A response: 1. reads the options, 2. waits for its turn, 3. writes the prompt, 4. generates text, 5. ends it at stop sequences, 6. parses it into text, thoughts and tool calls.
/// It holds its turn to the end.
/// </remarks>
internal sealed class GeneratorChatClient(IChatGenerator generator, ChatClientOptions clientOptions) : IChatClient
{
    // Created on first use: an executor of another library may have no context until then.
    private readonly Lazy<ChatModel> _model = new(() => new ChatModel(generator.Weights!), LazyThreadSafetyMode.PublicationOnly);
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
            : serviceType == typeof(ChatClientMetadata) ? generator.Weights is null ? ChatModel.Unknown : Model.Metadata
            : serviceType.IsInstanceOfType(generator.Source) ? generator.Source
            : serviceType.IsInstanceOfType(this) ? this
            : null;
    }

    /// <summary>Cancels running and waiting responses, which throw <see cref="ObjectDisposedException"/>. The executor belongs to the caller and stays usable.</summary>
    public void Dispose() => _disposal.Cancel();

    private async IAsyncEnumerable<ChatResponseUpdate> RespondAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await generator.WaitUntilLoadedAsync(cancellationToken).ConfigureAwait(false);
        var request = new ChatRequest(options, Model.Names, this);
        using IDisposable? turn = await generator.WaitTurnAsync($"{nameof(IChatClient)}.{nameof(GetResponseAsync)}", cancellationToken).ConfigureAwait(false);
        // Cancelling releases the turn even if the consumer never requests another update. The reference is weak, because the token may outlive an abandoned response.
        using CancellationTokenRegistration ending = turn is null ? default : cancellationToken.UnsafeRegister(
            static turn => (((WeakReference<IDisposable>)turn!).TryGetTarget(out IDisposable? target) ? target : null)?.Dispose(), new WeakReference<IDisposable>(turn));
        ChatPrompt prompt = ChatPrompt.Write(Model.Templates, clientOptions, messages, request, cancellationToken);
        if (request.HasGrammar)
        {
            generator.CheckLength(prompt.Text);
        }

        using DefaultSamplingPipeline pipeline = ChatSampling.CreatePipeline(Model, request, prompt, cancellationToken);
        InferenceParams parameters = ChatSampling.CreateParameters(request, prompt, pipeline, clientOptions.HistoryTransform);
        var response = new ResponseWriter(Model, request, prompt);
        (IAsyncEnumerable<string> pieces, InferenceResults results) = generator.Generate(turn, prompt.Text, parameters, cancellationToken);
        IAsyncEnumerable<string> text = (clientOptions.OutputTransform ?? new LLamaTransforms.EmptyTextOutputStreamTransform()).TransformAsync(pieces);
        var stops = new StopStrings(parameters.AntiPrompts);
        await foreach (string piece in stops.UpToFirst(text, cancellationToken).ConfigureAwait(false))
        {
            foreach (ChatResponseUpdate update in response.Add(piece))
            {
                response.AddLogprobs(update, results);
                yield return update;
            }

            if (response.IsComplete)
            {
                break;
            }
        }

        foreach (ChatResponseUpdate update in response.Finish(results, stops.Found))
        {
            yield return update;
        }
    }
}
