using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Generates with an executor, one response at a time.</summary>
/// <remarks>
/// Responses of executors that share a context take turns, first come, first served. A <see cref="StatelessExecutor"/> creates a context per call, so each of its clients has its own turns.
/// All clients of an executor of another type share their turns.
/// </remarks>
internal sealed class ExecutorGenerator(ILLamaExecutor executor) : IChatGenerator
{
    private static readonly ConditionalWeakTable<ILLamaExecutor, ContextGate> Turns = [];

    private readonly ContextGate _own = new(typeof(IChatClient).FullName!);

    // An executor of another library may have no context until it is used.
    public LLamaWeights? Weights => executor.Context?.Weights;

    public object Source => executor;

    public async Task<IDisposable?> WaitTurnAsync(string operation, CancellationToken cancellationToken)
    {
        Task<ContextTurn> turn = executor switch
        {
            StatefulExecutorBase => executor.Context.Handle.WaitTurnAsync(operation, cancellationToken),
            StatelessExecutor => _own.WaitTurnAsync(operation, cancellationToken),
            _ => Turns.GetValue(executor, static executor => new ContextGate(executor.GetType().FullName!)).WaitTurnAsync(operation, cancellationToken),
        };
        return await turn.ConfigureAwait(false);
    }

    public (IAsyncEnumerable<string> Pieces, InferenceResults Results) Generate(
        IDisposable? turn, PromptText prompt, InferenceParams parameters, CancellationToken cancellationToken)
    {
        var results = new InferenceResults();
        IAsyncEnumerable<string> pieces = executor switch
        {
            StatefulExecutorBase stateful => stateful.InferWholeAsync((ContextTurn)turn!, results, prompt, parameters, cancellationToken),
            StatelessExecutor stateless => stateless.InferAsync(prompt, parameters, cancellationToken),
            _ => executor.InferAsync(prompt.Value, parameters, cancellationToken),
        };
        return (pieces, (pieces as InferenceStream)?.Results ?? results);  // an executor's own results are those of its last call
    }
}
