using System.Diagnostics;
using System.Numerics.Tensors;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>Measures how texts written with a KV cache depart from those of a reference cache.</summary>
/// <remarks>
/// Each cache continues the same prompts greedily. Two figures show errors that accumulate while writing, which teacher-forced perplexity cannot show: the number of tokens
/// before a text first differs from the reference's, and the reference cache's perplexity of the text. End-of-generation tokens are never chosen, so that all texts
/// have the same length.
/// </remarks>
public static class GenerationEvaluator
{
    /// <summary>Writes and scores the texts. Only one context is in memory at a time.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="parameters">Context parameters; context size, number of sequences and cache are replaced.</param>
    /// <param name="caches">The caches, including the reference.</param>
    /// <param name="prompts">Token ids of the prompts, with BOS if the model uses it; see <see cref="GenerationPrompts"/>.</param>
    /// <param name="options">Settings; null: the defaults.</param>
    /// <param name="progress">Receives the fraction of tokens written and scored, 0 to 1.</param>
    /// <param name="cancellationToken">Cancels the measurement.</param>
    /// <returns>Results in the order of the caches.</returns>
    /// <exception cref="ArgumentException">The reference is not among the caches, a prompt is missing or empty, or a setting is out of range.</exception>
    /// <exception cref="OperationCanceledException">The measurement was cancelled.</exception>
    public static IReadOnlyList<GenerationResult> Evaluate(
        LLamaWeights weights, ModelParams parameters, IReadOnlyList<NamedKvCache> caches, IReadOnlyList<int[]> prompts, GenerationOptions? options = null,
        IProgress<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(caches);
        ArgumentNullException.ThrowIfNull(prompts);
        options ??= new GenerationOptions();
        NamedKvCache reference = Check(caches, prompts, options);
        int generated = options.GeneratedTokens;
        int longest = prompts.Max(prompt => prompt.Length) + generated;
        double total = 2.0 * caches.Count * prompts.Count * generated;
        long done = 0;
        void Report(int tokens) => progress?.Report((float)((done += tokens) / total));

        var written = new List<(NamedKvCache Cache, int[][] Texts, CacheUsage Usage, double Seconds)>();
        foreach (NamedKvCache cache in caches)
        {
            int sequences = Math.Min(options.Parallel, prompts.Count);
            using LLamaContext context = weights.CreateContext(
                parameters with { SeqMax = (uint)sequences, ContextSize = checked((uint)sequences * (uint)longest), KvCache = cache.Params });
            long start = Stopwatch.GetTimestamp();
            int[][] texts = [.. prompts.Chunk(sequences).SelectMany(batch => Write(context, batch, options, Report, cancellationToken))];
            written.Add((cache, texts, context.KvCacheUsage, Stopwatch.GetElapsedTime(start).TotalSeconds));
        }

        using LLamaContext scorer = weights.CreateContext(parameters with { SeqMax = 1, ContextSize = (uint)longest, KvCache = reference.Params });
        int[][] own = written.First(cache => cache.Cache.Name == options.Reference).Texts;
        List<GenerationRun[]> runs = [.. written.Select(cache => cache.Texts.Select((text, i) => new GenerationRun(
            text, FirstDisagreement(text, own[i]), Score(scorer, prompts[i], text, options.ChunkSize, Report, cancellationToken))).ToArray())];
        GenerationRun[] ofReference = runs[written.FindIndex(cache => cache.Cache.Name == options.Reference)];
        int[] checkpoints = [.. options.Checkpoints.Append(generated).Where(at => at <= generated).Distinct().Order()];
        return [.. written.Select((cache, i) => GenerationResult.Create(cache.Cache.Name, runs[i], ofReference, checkpoints, cache.Usage, cache.Seconds))];
    }

    private static NamedKvCache Check(IReadOnlyList<NamedKvCache> caches, IReadOnlyList<int[]> prompts, GenerationOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.GeneratedTokens, 1, "options.GeneratedTokens");
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Parallel, 1, "options.Parallel");
        ArgumentOutOfRangeException.ThrowIfLessThan(options.ChunkSize, 1, "options.ChunkSize");
        ArgumentOutOfRangeException.ThrowIfLessThan(options.Checkpoints.DefaultIfEmpty(1).Min(), 1, "options.Checkpoints");
        if (prompts.Count == 0 || prompts.Any(prompt => prompt is null or []))
        {
            throw new ArgumentException("there is no prompt, or a prompt has no tokens", nameof(prompts));
        }

        return caches.FirstOrDefault(cache => cache.Name == options.Reference)
            ?? throw new ArgumentException($"the caches do not include the reference '{options.Reference}'; add it, or name another reference", nameof(caches));
    }

    // One sequence per prompt; a step decodes one token of each.
    private static int[][] Write(LLamaContext context, int[][] prompts, GenerationOptions options, Action<int> report, CancellationToken cancellationToken)
    {
        ContextHandle handle = context.Handle;
        float[] logits = new float[handle.VocabularySize];
        int[] ends = [.. Enumerable.Range(0, Math.Min(logits.Length, context.Weights.Tokenizer.VocabularySize)).Where(context.Weights.Tokenizer.IsEndOfGeneration)];
        int Next(int index)
        {
            handle.CopyLogits(index, logits);  // Logits would keep a copy of every row of the batch
            foreach (int end in ends)
            {
                logits[end] = float.NegativeInfinity;
            }

            return TensorPrimitives.IndexOfMax<float>(logits);
        }

        int[] sequences = [.. Enumerable.Range(0, prompts.Length)];
        byte[] outputs = [.. Enumerable.Repeat((byte)1, prompts.Length)];
        int[] next = new int[prompts.Length];
        foreach (int sequence in sequences)
        {
            handle.SeqTruncate(sequence, 0);
            int[] prompt = prompts[sequence];
            for (int at = 0; at < prompt.Length; at += options.ChunkSize)
            {
                int n = Math.Min(options.ChunkSize, prompt.Length - at);
                handle.Decode(prompt.AsSpan(at, n), [.. Enumerable.Repeat(sequence, n)], cancellationToken: cancellationToken);
                next[sequence] = at + n == prompt.Length ? Next(n - 1) : 0;
            }
        }

        int[][] texts = [.. prompts.Select(_ => new int[options.GeneratedTokens])];
        for (int t = 0; t < options.GeneratedTokens; t++)
        {
            foreach (int sequence in sequences)
            {
                texts[sequence][t] = next[sequence];
            }

            if (t + 1 < options.GeneratedTokens)
            {
                handle.Decode(next, sequences, outputs: outputs, cancellationToken: cancellationToken);
                foreach (int sequence in sequences)
                {
                    next[sequence] = Next(sequence);
                }
            }

            report(prompts.Length);
        }

        return texts;
    }

    // Losses of a text's tokens, each given the prompt and the tokens before it.
    private static double[] Score(LLamaContext context, int[] prompt, int[] text, int chunk, Action<int> report, CancellationToken cancellationToken)
    {
        ContextHandle handle = context.Handle;
        float[] logits = new float[handle.VocabularySize];
        double[] losses = new double[text.Length];
        int[] read = [.. prompt, .. text.AsSpan(0, text.Length - 1)];
        handle.SeqTruncate(0, 0);
        for (int at = 0; at < read.Length; at += chunk)
        {
            int n = Math.Min(chunk, read.Length - at);
            int first = Math.Clamp(prompt.Length - 1 - at, 0, n);  // the prompt's last token predicts the text's first
            byte[] outputs = new byte[n];
            outputs.AsSpan(first).Fill(1);
            handle.Decode(read.AsSpan(at, n), outputs: outputs, cancellationToken: cancellationToken);
            for (int i = first; i < n; i++)
            {
                handle.CopyLogits(i, logits);
                int scored = at + i + 1 - prompt.Length;
                losses[scored] = Loss(logits, text[scored]);
            }
        }

        report(text.Length);
        return losses;
    }

    // Overwrites the logits.
    private static double Loss(Span<float> logits, int token)
    {
        float max = TensorPrimitives.Max<float>(logits);
        float chosen = logits[token] - max;
        TensorPrimitives.Subtract(logits, max, logits);
        TensorPrimitives.Exp<float>(logits, logits);
        return Math.Log(TensorPrimitives.Sum<float>(logits)) - chosen;
    }

    private static int? FirstDisagreement(int[] text, int[] reference)
    {
        int equal = text.AsSpan().CommonPrefixLength(reference);
        return equal < text.Length ? equal : null;
    }
}
