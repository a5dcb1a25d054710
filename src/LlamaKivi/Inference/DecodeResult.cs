namespace LlamaKivi.Native;

/// <summary>Result of decoding a batch.</summary>
public enum DecodeResult
{
    /// <summary>The batch is not valid.</summary>
    InvalidInputBatch = -1,

    /// <summary>The batch was decoded.</summary>
    Ok = 0,

    /// <summary>The KV cache has no room for the batch.</summary>
    NoKvSlot = 1,

    /// <summary>Decoding was cancelled.</summary>
    ComputeAborted = 2,

    /// <summary>Not enough memory.</summary>
    AllocationFailed = -2,

    /// <summary>The computation failed.</summary>
    DecodeFailed = -3,
}
