namespace LlamaKivi.Abstractions;

/// <summary>Parameters of a model and of its contexts.</summary>
public interface ILLamaParams : IModelParams, IContextParams;
