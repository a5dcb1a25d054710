using System.Globalization;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>A loaded model. Any number of threads and contexts may share it; contexts keep it alive.</summary>
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

    /// <summary>Where the model was loaded from.</summary>
    internal string ModelPath { get; }

    /// <summary>The native model: its shape and its file.</summary>
    public ModelHandle Model { get; }

    /// <summary>Layers that the GPU computes; 0: the CPU computes all.</summary>
    public int GpuLayerCount { get; }

    /// <summary>The model's tokenizer. Of a file without a vocabulary it takes no text: see <see cref="Tokenizer.HasTexts"/>.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>The file's metadata as text; arrays are left out. Truth values are true and false; numbers that are no integers have six decimals.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; set; }

    /// <summary>Tokens the model was trained to handle at once.</summary>
    public int ContextSize => Model.Description.TrainedContextSize;

    /// <summary>Bytes of the weights.</summary>
    public ulong SizeInBytes => (ulong)Model.Description.WeightBytes;

    /// <summary>Weights.</summary>
    public ulong ParameterCount => (ulong)Model.Description.ParameterCount;

    /// <summary>Elements of an embedding.</summary>
    public int EmbeddingSize => Model.Description.EmbeddingSize;

    /// <summary>Loads a model.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ModelLoadException">The file cannot be read, or is not a valid model; the message says why.</exception>
    /// <exception cref="UnsupportedModelException">The engine does not have this architecture, format or tokenizer.</exception>
    /// <exception cref="DeviceException">RequireGpu is set, and no GPU is usable.</exception>
    public static LLamaWeights LoadFromFile(IModelParams @params) => Load(@params, null, null, CancellationToken.None);

    /// <summary>Loads a model on another thread.</summary>
    /// <param name="params">What to load.</param>
    /// <param name="token">Stops the load.</param>
    /// <param name="progressReporter">Told the fraction done, 0 to 1.</param>
    /// <param name="logger">Told of oddities in the file.</param>
    public static Task<LLamaWeights> LoadFromFileAsync(
        IModelParams @params, CancellationToken token = default, IProgress<float>? progressReporter = null, ILogger? logger = null) =>
        Task.Run(() => Load(@params, progressReporter, logger, token), token);

    /// <summary>Creates a context.</summary>
    public LLamaContext CreateContext(IContextParams @params, ILogger? logger = null) => new(this, @params, logger);

    /// <summary>Cuts a text into tokens.</summary>
    /// <param name="text">The text.</param>
    /// <param name="addBos">True: the beginning-of-sequence token comes first, if the model uses one.</param>
    /// <param name="special">True: special tokens written out in the text become those tokens.</param>
    public LLamaToken[] Tokenize(string text, bool addBos, bool special) =>
        [.. Tokenizer.Encode(text, addBos && Tokenizer.AddBos, special).Select(id => (LLamaToken)id)];

    /// <summary>Cuts a text into tokens.</summary>
    /// <param name="text">The text.</param>
    /// <param name="add_bos">True: the beginning-of-sequence token comes first, if the model uses one.</param>
    /// <param name="special">True: special tokens written out in the text become those tokens.</param>
    /// <param name="encoding">Without effect: the text is UTF-8 to the model.</param>
    public LLamaToken[] Tokenize(string text, bool add_bos, bool special, Encoding encoding) => Tokenize(text, add_bos, special);

    /// <summary>Drops this reference to the model; contexts that use it go on.</summary>
    public void Dispose() => Model.Dispose();

    // The engine takes what a context's parameters say of rotary positions when a model is loaded.
    internal void CheckRope(IContextParams @params)
    {
        foreach ((string key, object value) in RopeSettings.Of(@params).ToMetadata(Model.Description.Architecture, ModelLoader.RopeScaling(Model.Gguf)))
        {
            object? known = Model.Gguf.GetValue(key);
            bool same = value is string text ? text == (known as string ?? "none")
                : known is not null and not string && Math.Abs(Convert.ToDouble(known, CultureInfo.InvariantCulture) / Convert.ToDouble(value, CultureInfo.InvariantCulture) - 1) < 1e-5;
            if (!same)
            {
                throw new NotSupportedException($"The context's parameters say that {key} is {value}; the model was loaded with {known ?? "none"}. Load the model with the same parameters.");
            }
        }
    }

    // As stock llama.cpp writes it: programs compare with "true" and read "10000.000000".
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
