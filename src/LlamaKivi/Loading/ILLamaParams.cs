namespace LlamaKivi.Abstractions;

/// <summary>How to load a model and create contexts of it.</summary>
public interface ILLamaParams : IModelParams, IContextParams;
