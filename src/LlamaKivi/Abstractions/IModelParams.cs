namespace LlamaKivi.Abstractions;

/// <summary>How to load a model.</summary>
public interface IModelParams
{
    /// <summary>Path of the GGUF file.</summary>
    string ModelPath { get; }

    /// <summary>True: weights stay in the mapped file, which other processes share. False: they are read into memory.</summary>
    bool UseMemorymap { get; }
}
