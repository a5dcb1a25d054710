using LlamaKivi.Native;

namespace LlamaKivi.Abstractions;

/// <summary>A native library that was loaded.</summary>
public interface INativeLibrary
{
    /// <summary>What is known of it.</summary>
    NativeLibraryMetadata? Metadata { get; }
}
