namespace LlamaKivi.Native;

/// <summary>What came of encoding a batch.</summary>
public enum EncodeResult
{
    /// <summary>It failed.</summary>
    Error = -1,

    /// <summary>Encoded.</summary>
    Ok = 0,
}
