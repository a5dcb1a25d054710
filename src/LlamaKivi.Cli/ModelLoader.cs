using LlamaKivi.Cli.Output;
using LlamaKivi.Common;

namespace LlamaKivi.Cli;

/// <summary>Loads a model behind a progress bar.</summary>
internal static class ModelLoader
{
    public static Task<LLamaWeights> LoadAsync(ModelParams parameters, CancellationToken cancellationToken) =>
        Terminal.WithProgressAsync(
            $"loading {Path.GetFileName(parameters.ModelPath)}",
            report => LLamaWeights.LoadFromFileAsync(parameters, cancellationToken, new DirectProgress(report)));

    /// <summary>Reports on the calling thread: Progress&lt;T&gt; would queue, and could report after the bar is gone.</summary>
    private sealed class DirectProgress(Action<double> report) : IProgress<float>
    {
        public void Report(float value) => report(value);
    }
}
