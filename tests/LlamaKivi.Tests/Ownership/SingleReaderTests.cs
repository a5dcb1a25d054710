using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests.Ownership;

/// <summary>Concurrent MoveNextAsync calls on one enumerator.</summary>
public sealed class SingleReaderTests(TinyModel model) : IClassFixture<TinyModel>
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    // A concurrent step that is not rejected ends the test process.
    private static async Task CheckAsync<T>(IAsyncEnumerable<T> stream, Gate gate)
    {
        IAsyncEnumerator<T> reader = stream.GetAsyncEnumerator(Cancelled);
        Task<bool> first = Task.Run(() => reader.MoveNextAsync().AsTask(), Cancelled);
        await gate.Reached.WaitAsync(TimeSpan.FromSeconds(30), Cancelled);
        InvalidOperationException step = await Assert.ThrowsAsync<InvalidOperationException>(async () => await reader.MoveNextAsync());
        InvalidOperationException disposal = await Assert.ThrowsAsync<InvalidOperationException>(async () => await reader.DisposeAsync());
        Assert.All([step, disposal], e => Assert.StartsWith("The previous MoveNextAsync has not completed", e.Message, StringComparison.Ordinal));
        gate.Open();
        Assert.True(await first);
        while (await reader.MoveNextAsync())
        {
        }

        await reader.DisposeAsync();
    }

    [Fact]
    public async Task A_stream_of_an_executor_refuses_the_second()
    {
        using LLamaContext context = model.Weights.CreateContext(model.Params());
        foreach (ILLamaExecutor executor in new ILLamaExecutor[] { new InteractiveExecutor(context), new StatelessExecutor(model.Weights, model.Params()) })
        {
            var gate = new Gate();
            await CheckAsync(executor.InferAsync("Begin", gate.Inference, Cancelled), gate);
        }
    }

    [Fact]
    public async Task An_answer_of_a_session_refuses_the_second()
    {
        using LLamaContext context = model.Weights.CreateContext(model.Params());
        var session = new ChatSession(new InteractiveExecutor(context));
        var message = new ChatHistory.Message(AuthorRole.User, "a");
        var gate = new Gate();
        await CheckAsync(session.ChatAsync(message, gate.Inference, Cancelled), gate);
        gate = new Gate();
        await CheckAsync(session.ChatAsync(new ChatHistory([message]), gate.Inference, Cancelled), gate);
        gate = new Gate();
        await CheckAsync(session.RegenerateAssistantMessageAsync(gate.Inference, Cancelled), gate);
    }

    [Fact]
    public async Task A_response_of_a_chat_client_refuses_the_second()
    {
        using LLamaContext context = model.Weights.CreateContext(model.Params());
        var gate = new Gate();
        using IChatClient client = new InteractiveExecutor(context).AsChatClient(outputTransform: gate);
        await CheckAsync(client.GetStreamingResponseAsync("a", new ChatOptions { Temperature = 0, MaxOutputTokens = 2 }, Cancelled), gate);
    }

    // Blocks a stream before its first piece.
    private sealed class Gate : ITextStreamTransform
    {
        private readonly TaskCompletionSource _reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly TaskCompletionSource _open = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Task Reached => _reached.Task;

        public InferenceParams Inference => new()
        {
            MaxTokens = 2,
            SamplingPipeline = new ScriptedPipeline(1) { BeforeToken = _ => Pass().Wait(Cancelled) },
        };

        public void Open() => _open.SetResult();

        public async IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens)
        {
            await Pass();
            await foreach (string token in tokens)
            {
                yield return token;
            }
        }

        public ITextStreamTransform Clone() => this;

        private Task Pass()
        {
            _reached.TrySetResult();
            return _open.Task;
        }
    }
}
