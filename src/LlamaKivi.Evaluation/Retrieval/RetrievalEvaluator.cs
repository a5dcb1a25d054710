using System.Numerics.Tensors;

namespace LlamaKivi.Evaluation;

/// <summary>Measures whether a model recalls a number hidden in a long text.</summary>
/// <remarks>
/// A case is correct if greedy decoding would generate the whole number. Cases alternate between a pass key and a named secret code, at varying positions in the text.
/// Source of the task: passkey retrieval (Mohtashami and Jaggi 2023, arXiv 2305.16300).
/// </remarks>
public static class RetrievalEvaluator
{
    /// <summary>Runs the cases. Sequence 0 of the context is overwritten.</summary>
    /// <param name="context">A context of at least <see cref="RetrievalOptions.Depth"/> + 64 tokens.</param>
    /// <param name="options">Settings.</param>
    /// <param name="progress">Receives the fraction done, 0 to 1.</param>
    /// <param name="cancellationToken">Cancels the measurement.</param>
    /// <exception cref="ArgumentOutOfRangeException">The depth is too small for a fact and a question, or another setting is below 1.</exception>
    /// <exception cref="OperationCanceledException">The measurement was cancelled.</exception>
    public static RetrievalResult Evaluate(LLamaContext context, RetrievalOptions options, IProgress<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(context);
        ArgumentNullException.ThrowIfNull(options);
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Cases, 1, "options.Cases");
        ArgumentOutOfRangeException.ThrowIfLessThan(options.ChunkSize, 1, "options.ChunkSize");
        int correct = 0;
        for (int i = 0; i < options.Cases; i++)
        {
            // Every cache type gets the same cases.
            var random = new Random(HashCode(options.Seed, options.Depth, i));
            var one = RetrievalCase.Create(context.Weights.Tokenizer, options.Depth, i, (i + 0.5) / options.Cases, random);
            correct += IsFound(context, one, options.ChunkSize, cancellationToken) ? 1 : 0;
            progress?.Report((float)(i + 1) / options.Cases);
        }

        return new RetrievalResult(options.Depth, options.Cases, correct);
    }

    private static bool IsFound(LLamaContext context, RetrievalCase one, int chunk, CancellationToken cancellationToken)
    {
        context.Handle.SeqTruncate(0, 0);
        int[] read = [.. one.Prompt, .. one.Answer.AsSpan(0, one.Answer.Length - 1)];
        int first = one.Prompt.Length - 1;  // its logits predict the answer's first token
        bool found = true;
        for (int at = 0; at < read.Length; at += chunk)
        {
            int n = Math.Min(chunk, read.Length - at);
            byte[] outputs = new byte[n];
            outputs.AsSpan(Math.Clamp(first - at, 0, n)).Fill(1);
            context.Handle.Decode(read.AsSpan(at, n), outputs: outputs, cancellationToken: cancellationToken);
            for (int t = Math.Max(0, first - at); t < n; t++)
            {
                found &= TensorPrimitives.IndexOfMax<float>(context.Handle.Logits(t)) == one.Answer[at + t - first];
            }
        }

        return found;
    }

    private static int HashCode(int seed, int depth, int index) => unchecked((((seed * 31) + depth) * 1_000_003) + index);
}
