using System.Globalization;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>A loaded model, shared by any number of threads and contexts. Contexts keep it alive.</summary>
public sealed partial class LLamaWeights : IDisposable
{
    private LLamaWeights(ModelHandle model, Tokenizer tokenizer, string modelPath, int gpuLayers)
    {
        ModelPath = modelPath;
        Model = model;
        model.Owner = typeof(LLamaWeights).FullName!;
        GpuLayerCount = gpuLayers < 0 ? model.Description.LayerCount : Math.Min(gpuLayers, model.Description.LayerCount);
        Tokenizer = tokenizer;
        Metadata = model.Gguf.Entries
            .Where(entry => entry.Type != GgufValueType.Array)
            .ToDictionary(entry => entry.Key, entry => Text(model.Gguf.GetValue(entry.Key)), StringComparer.Ordinal);
    }

    /// <summary>Path of the model file.</summary>
    internal string ModelPath { get; }

    /// <summary>The native model, with its shape and its file.</summary>
    public ModelHandle Model { get; }

    /// <summary>Number of layers on the GPU; 0: all layers are on the CPU.</summary>
    public int GpuLayerCount { get; }

    /// <summary>The model's tokenizer. Without a vocabulary in the file it cannot encode text; see <see cref="Tokenizer.HasTexts"/>.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>Metadata of the file as strings, without arrays. Booleans are "true" and "false"; floats have six decimals.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; set; }

    /// <summary>Context size the model was trained with, in tokens.</summary>
    public int ContextSize => Model.Description.TrainedContextSize;

    /// <summary>Size of the weights in bytes.</summary>
    public ulong SizeInBytes => (ulong)Model.Description.WeightBytes;

    /// <summary>Number of weights.</summary>
    public ulong ParameterCount => (ulong)Model.Description.ParameterCount;

    /// <summary>Embedding length in floats.</summary>
    public int EmbeddingSize => Model.Description.EmbeddingSize;

    /// <summary>Loads a model.</summary>
    /// <exception cref="FileNotFoundException">The file does not exist.</exception>
    /// <exception cref="ModelLoadException">The file cannot be read or is not a valid model; the message gives the cause.</exception>
    /// <exception cref="UnsupportedModelException">The engine does not support the architecture, tensor type or tokenizer.</exception>
    /// <exception cref="DeviceException">RequireGpu is true and no GPU is usable.</exception>
    public static LLamaWeights LoadFromFile(IModelParams @params) => Load(@params, null, null, CancellationToken.None);

    /// <summary>Loads a model on a thread pool thread.</summary>
    /// <param name="params">Model parameters.</param>
    /// <param name="token">Cancels the load.</param>
    /// <param name="progressReporter">Receives the fraction loaded, 0 to 1.</param>
    /// <param name="logger">Receives warnings about the file.</param>
    public static Task<LLamaWeights> LoadFromFileAsync(
        IModelParams @params, CancellationToken token = default, IProgress<float>? progressReporter = null, ILogger? logger = null) =>
        Task.Run(() => Load(@params, progressReporter, logger, token), token);

    /// <summary>Creates a context.</summary>
    public LLamaContext CreateContext(IContextParams @params, ILogger? logger = null) => new(this, @params, logger);

    /// <summary>Tokenizes a text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="addBos">Whether to prepend the beginning-of-sequence token, if the model uses one.</param>
    /// <param name="special">Whether special tokens spelled out in the text are parsed as those tokens.</param>
    public LLamaToken[] Tokenize(string text, bool addBos, bool special) =>
        [.. Tokenizer.Encode(text, addBos && Tokenizer.AddBos, special).Select(id => (LLamaToken)id)];

    /// <summary>Releases this reference; existing contexts keep the model alive.</summary>
    public void Dispose() => Model.Dispose();

    // RoPE parameters take effect at loading: a context cannot change them.
    internal void CheckRope(IContextParams @params)
    {
        foreach ((string key, object value) in RopeSettings.Of(@params).ToMetadata(Model.Description.Architecture, ModelLoader.RopeScaling(Model.Gguf)))
        {
            object? known = Model.Gguf.GetValue(key);
            bool same = value is string text ? text == (known as string ?? "none")
                : known is not null and not string && Math.Abs(Convert.ToDouble(known, CultureInfo.InvariantCulture) / Convert.ToDouble(value, CultureInfo.InvariantCulture) - 1) < 1e-5;
            if (!same)
            {
                throw new NotSupportedException($"The context's parameters set {key} to {value}; the model was loaded with {known ?? "none"}. Load the model with the same parameters.");
            }
        }
    }

    // llama.cpp's format: programs compare with "true" and parse "10000.000000".
    private static string Text(object? value) => value switch
    {
        bool truth => truth ? "true" : "false",
        float or double => string.Create(CultureInfo.InvariantCulture, $"{value:F6}"),
        _ => Convert.ToString(value, CultureInfo.InvariantCulture) ?? "",
    };

    private static LLamaWeights Load(IModelParams @params, IProgress<float>? progress, ILogger? logger, CancellationToken token)
    {
        ArgumentNullException.ThrowIfNull(@params);
        ModelHandle model = ModelLoader.Open(@params, out int gpuLayers, progress, logger, token);
        try
        {
            return new LLamaWeights(model, Tokenizer.FromGguf(model.Gguf, logger), @params.ModelPath, gpuLayers);
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }
}
