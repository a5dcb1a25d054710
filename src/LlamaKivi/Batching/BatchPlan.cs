namespace LlamaKivi.Batched;

/// <summary>What the next batch reads of the prompts that wait.</summary>
/// <remarks>
/// Prompts are read in the order of the queue. A prompt starts only if all of it fits beside what started prompts still need, so a started prompt can always be finished. A prompt that does
/// not fit waits, and later prompts that fit go first.
/// </remarks>
internal sealed class BatchPlan
{
    private readonly List<Part> _parts = [];

    private BatchPlan()
    {
    }

    public IReadOnlyList<Part> Parts => _parts;

    /// <summary>Elements of an embedding; 0: the batch is of tokens.</summary>
    public int Width { get; private set; }

    public int Count { get; private set; }

    /// <summary>The prompts that wait because the cache has no room for them.</summary>
    public HashSet<PendingPrompt> WithoutRoom { get; } = [];

    /// <summary>Makes a plan.</summary>
    /// <param name="queue">The prompts that wait, the oldest first.</param>
    /// <param name="batchSize">Most tokens of a batch.</param>
    /// <param name="room">Tokens the cache has room for.</param>
    public static BatchPlan Make(IReadOnlyList<PendingPrompt> queue, int batchSize, long room)
    {
        var plan = new BatchPlan();
        foreach (PendingPrompt prompt in queue.Where(prompt => prompt.IsBegun).Concat(queue.Where(prompt => !prompt.IsBegun)))
        {
            if (prompt.Count <= room)
            {
                room -= prompt.Count;
            }
            else
            {
                plan.WithoutRoom.Add(prompt);
            }
        }

        // A batch is of tokens or of embeddings: what is of the other kind than the first waits for the next one.
        foreach (PendingPrompt prompt in queue)
        {
            if (plan.WithoutRoom.Contains(prompt) || (plan.Count > 0 && prompt.Width != plan.Width))
            {
                continue;
            }

            int take = Math.Min(prompt.Count, batchSize - plan.Count);
            if (take == 0 || (prompt.AllLogits && take < prompt.Count))
            {
                continue;
            }

            plan.Width = prompt.Width;
            plan._parts.Add(new Part(prompt, take, plan.Count));
            plan.Count += take;
        }

        return plan;
    }

    /// <summary>Tokens of a prompt in the batch.</summary>
    /// <param name="Prompt">The prompt.</param>
    /// <param name="Count">How many.</param>
    /// <param name="First">Index of the first one in the batch.</param>
    public readonly record struct Part(PendingPrompt Prompt, int Count, int First);
}
