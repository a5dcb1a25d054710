namespace LlamaKivi.Native;

/// <summary>What came of decoding a batch.</summary>
public enum DecodeResult
{
    /// <summary>The batch is not valid.</summary>
    InvalidInputBatch = -1,

    /// <summary>Decoded.</summary>
    Ok = 0,

    /// <summary>The KV cache has no room for the batch.</summary>
    NoKvSlot = 1,

    /// <summary>Cancelled.</summary>
    ComputeAborted = 2,

    /// <summary>There is not enough memory.</summary>
    AllocationFailed = -2,

    /// <summary>The computation failed.</summary>
    DecodeFailed = -3,
}
