namespace PeerBenchmark;

/// <summary>What both libraries do. The code is one file, Workload.cs, compiled against each.</summary>
public interface IWorkload : IDisposable
{
    /// <summary>Loads the model and frees it.</summary>
    void Load();

    /// <summary>Reads 512 tokens into an empty cache.</summary>
    void Prefill();

    /// <summary>Writes 128 tokens behind so many.</summary>
    void Decode(int depth);

    /// <summary>Conversations of a BatchedExecutor read 64 tokens each and write 32.</summary>
    void Batch(int conversations);

    /// <summary>Embeddings of eight texts.</summary>
    void Embed();
}
