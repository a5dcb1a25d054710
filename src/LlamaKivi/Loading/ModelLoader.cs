using LlamaKivi.Abstractions;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Microsoft.Extensions.Logging;

namespace LlamaKivi.Common;

/// <summary>Converts parameters to native model options; nothing else does.</summary>
public static class ModelLoader
{
    /// <summary>Loads a model without its tokenizer.</summary>
    /// <param name="params">Model parameters.</param>
    /// <param name="progress">Receives the fraction loaded, 0 to 1.</param>
    /// <param name="logger">Receives a warning if layers requested on a GPU run on the CPU.</param>
    /// <param name="token">Cancels the load.</param>
    /// <exception cref="ArgumentException">ModelPath is empty, or a number is not finite.</exception>
    /// <exception cref="FileNotFoundException">The file does not exist.</exception>
    /// <exception cref="ModelLoadException">The file cannot be read or is not a valid model; the message gives the cause.</exception>
    /// <exception cref="UnsupportedModelException">The engine does not support the architecture or format.</exception>
    /// <exception cref="DeviceException">RequireGpu is true and no GPU is usable.</exception>
    /// <exception cref="UnknownDeviceException">A device in Devices does not exist.</exception>
    public static ModelHandle Open(IModelParams @params, IProgress<float>? progress = null, ILogger? logger = null, CancellationToken token = default) =>
        Open(@params, out _, progress, logger, token);

    /// <summary>Requested number of layers on the GPU; negative: all, returned as -1. 0 if the device list has no GPU.</summary>
    /// <exception cref="UnknownDeviceException">A device in Devices does not exist.</exception>
    internal static int GpuLayers(IModelParams @params)
    {
        bool mayUseGpu = @params.Devices is not { Count: > 0 } devices || Devices.Check(devices);
        return @params.VocabOnly || !mayUseGpu ? 0 : Math.Max(@params.GpuLayerCount, -1);
    }

    /// <summary>Number of layers on the GPU after checking for a usable GPU; see <see cref="IModelParams.RequireGpu"/>.</summary>
    internal static int UsableGpuLayers(IModelParams @params, ILogger? logger = null)
    {
        int layers = GpuLayers(@params);
        if (layers == 0 || @params.RequireGpu || NativeEngine.TryDescribeDevice(out _, out string? reason))
        {
            return layers;
        }

        if (layers > 0)
        {
            NativeLog.Write(EngineLogLevel.Warning, $"{layers} layers were requested on a GPU, but the CPU is used: {reason}");
            if (logger is not null)
            {
                Log.NoGpu(logger, layers, reason);
            }
        }

        return 0;
    }

    internal static ModelHandle Open(IModelParams @params, out int gpuLayers, IProgress<float>? progress, ILogger? logger, CancellationToken token)
    {
        ArgumentNullException.ThrowIfNull(@params);
        if (string.IsNullOrEmpty(@params.ModelPath))
        {
            throw new ArgumentException("ModelPath is empty; set it to the path of a GGUF file.", nameof(@params));
        }

        gpuLayers = UsableGpuLayers(@params, logger);
        string path = @params.ModelPath;
        try
        {
            return ModelHandle.Load(path, progress is null ? null : progress.Report, @params.LoadMode is LLamaLoadMode.MemoryMap or LLamaLoadMode.MemoryMapAndLock, gpuLayers, @params.VocabOnly, Overrides(@params), token);
        }
        catch (ModelLoadException e) when (e.Status == EngineStatus.IoError && !Path.Exists(path))
        {
            throw new FileNotFoundException(e.Message, path, e);
        }
    }

    internal static string? RopeScaling(GgufFile file) => file.GetString($"{file.GetString("general.architecture")}.rope.scaling.type");

    // RoPE settings first, then explicit overrides: the last entry of a key wins.
    private static List<KeyValuePair<string, object>> Overrides(IModelParams @params)
    {
        var overrides = new List<KeyValuePair<string, object>>();
        if (@params is IContextParams context && RopeSettings.Of(context) is var rope && rope != RopeSettings.None)
        {
            using GgufFile file = GgufFile.Open(@params.ModelPath);
            overrides.AddRange(rope.ToMetadata(file.GetString("general.architecture") ?? "", RopeScaling(file)));
        }

        overrides.AddRange(@params.MetadataOverrides.Select(o => KeyValuePair.Create(o.Key, o.Value)));
        return overrides;
    }
}
