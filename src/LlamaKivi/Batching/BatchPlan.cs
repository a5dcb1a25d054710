namespace LlamaKivi.Batched;

/// <summary>Selects the tokens of the queued prompts that the next batch decodes.</summary>
/// <remarks>
/// Prompts are taken in queue order. A prompt starts only if the cache has room for all of it besides the rest of the started prompts, so every started prompt can finish.
/// A prompt that does not fit waits; later prompts that fit go first.
/// </remarks>
internal sealed class BatchPlan
{
    private readonly List<Part> _parts = [];

    private BatchPlan()
    {
    }

    public IReadOnlyList<Part> Parts => _parts;

    /// <summary>Embedding length in floats; 0: a batch of tokens.</summary>
    public int Width { get; private set; }

    public int Count { get; private set; }

    /// <summary>Prompts that the cache has no room for.</summary>
    public HashSet<PendingPrompt> WithoutRoom { get; } = [];

    /// <summary>Plans the next batch.</summary>
    /// <param name="queue">Queued prompts, oldest first.</param>
    /// <param name="batchSize">Maximum number of tokens in the batch.</param>
    /// <param name="room">Free cache capacity in tokens.</param>
    public static BatchPlan Make(List<PendingPrompt> queue, int batchSize, long room)
    {
        var plan = new BatchPlan();
        foreach (bool begun in (ReadOnlySpan<bool>)[true, false])
        {
            foreach (PendingPrompt prompt in queue)
            {
                if (prompt.IsBegun != begun)
                {
                    continue;
                }

                if (prompt.Count <= room)
                {
                    room -= prompt.Count;
                }
                else
                {
                    plan.WithoutRoom.Add(prompt);
                }
            }
        }

        // A batch contains either tokens or embeddings, like its first prompt; prompts of the other kind wait.
        foreach (PendingPrompt prompt in queue)
        {
            if (plan.WithoutRoom.Contains(prompt) || (plan.Count > 0 && prompt.Width != plan.Width))
            {
                continue;
            }

            int take = Math.Min(prompt.Count, batchSize - plan.Count);
            if (take == 0 || (prompt.Outputs == PromptOutputs.All && take < prompt.Count))
            {
                continue;
            }

            plan.Width = prompt.Width;
            plan._parts.Add(new Part(prompt, take, plan.Count));
            plan.Count += take;
        }

        return plan;
    }

    /// <summary>A prompt's tokens in the batch.</summary>
    /// <param name="Prompt">The prompt.</param>
    /// <param name="Count">Number of tokens.</param>
    /// <param name="First">Batch index of the first token.</param>
    public readonly record struct Part(PendingPrompt Prompt, int Count, int First);
}
