namespace LlamaKivi.Native;

/// <summary>Result of encoding a batch.</summary>
public enum EncodeResult
{
    /// <summary>Encoding failed.</summary>
    Error = -1,

    /// <summary>The batch was encoded.</summary>
    Ok = 0,
}
