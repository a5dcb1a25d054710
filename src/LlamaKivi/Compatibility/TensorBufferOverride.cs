namespace LlamaKivi.Abstractions;

/// <summary>Buffer type of the tensors whose names match a pattern.</summary>
public class TensorBufferOverride(string pattern, string bufferType)
{
    /// <summary>Pattern that tensor names are matched against.</summary>
    public string Pattern { get; set; } = pattern;

    /// <summary>Name of the buffer type.</summary>
    public string BufferType { get; set; } = bufferType;
}
