using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Returns scripted answers, one per call, in pieces of a few characters, and records the prompts.</summary>
internal sealed class ScriptedExecutor(LLamaContext context, params string[] answers) : ILLamaExecutor
{
    public LLamaContext Context => context;

    public List<string> Prompts { get; } = [];

    public List<IInferenceParams> Parameters { get; } = [];

    /// <summary>Number of requested pieces.</summary>
    public int Pieces { get; private set; }

    public async IAsyncEnumerable<string> InferAsync(string text, IInferenceParams? inferenceParams = null, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken token = default)
    {
        Prompts.Add(text);
        Parameters.Add(inferenceParams!);
        foreach (char[] piece in answers[Math.Min(Prompts.Count, answers.Length) - 1].Chunk(3))
        {
            await Task.Yield();
            Pieces++;
            yield return new string(piece);
        }
    }
}

/// <summary>An executor whose answers begin with given tokens; the rest is sampled.</summary>
internal sealed class PromptedExecutor(StatelessExecutor executor, int[] tokens) : ILLamaExecutor
{
    public LLamaContext Context => executor.Context;

    public IAsyncEnumerable<string> InferAsync(string text, IInferenceParams? inferenceParams = null, CancellationToken token = default) =>
        executor.InferAsync(text, (InferenceParams)inferenceParams! with { SamplingPipeline = new Pipeline(inferenceParams.SamplingPipeline, tokens) }, token);

    private sealed class Pipeline(ISamplingPipeline inner, int[] tokens) : ISamplingPipeline
    {
        private int _next;

        public LLamaToken Sample(SafeLLamaContextHandle ctx, int index)
        {
            if (_next < tokens.Length)
            {
                ctx.GetLogitsIth(index)[tokens[_next++]] = 1e30f;
            }

            return inner.Sample(ctx, index);
        }

        public void Apply(SafeLLamaContextHandle ctx, LLamaTokenDataArray data) => inner.Apply(ctx, data);

        public void Reset() => inner.Reset();

        public void Accept(LLamaToken token) => inner.Accept(token);

        public void Dispose() => inner.Dispose();
    }
}
