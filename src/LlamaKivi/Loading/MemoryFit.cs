using System.Globalization;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Estimates the memory of a model and its context before loading, and chooses how many layers are on the GPU and the context size so that both fit.</summary>
public static class MemoryFit
{
    private const double Usable = 0.97;  // fraction of the free memory; the rest is a reserve for other processes

    /// <summary>Bytes needed by the model and a full context: GPU memory if any layer is on the GPU, otherwise host memory.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">Model and context parameters.</param>
    /// <exception cref="ArgumentException">A parameter does not fit the model; the message gives valid values.</exception>
    public static long Needed(GgufFile file, ModelParams parameters)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(parameters);
        return Needed(file, parameters, ModelLoader.UsableGpuLayers(parameters));
    }

    private static long Needed(GgufFile file, ModelParams parameters, int gpuLayers)
    {
        MemoryEstimate e = ContextHandle.Estimate(file, ContextOptionsFactory.Create(parameters, KvCacheFallback.Of(file, parameters, out _), TrainedContextSize(file)), gpuLayers);
        return gpuLayers != 0 ? e.DeviceBytes : e.WeightBytes + e.CachePageBytes + e.CacheExactBytes + e.ScratchBytes;
    }

    /// <summary>Free bytes: GPU memory if any layer is on the GPU, otherwise host memory.</summary>
    /// <exception cref="DeviceException">RequireGpu is true and no GPU is usable.</exception>
    public static long Available(ModelParams parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        if (ModelLoader.UsableGpuLayers(parameters) != 0)
        {
            return NativeEngine.DescribeDevice().FreeBytes;
        }

        return AvailableHostBytes();
    }

    private static long AvailableHostBytes()
    {
        // The figures are those of the last collection, which may be long ago.
        GC.Collect(0, GCCollectionMode.Forced, blocking: true);
        GCMemoryInfo memory = GC.GetGCMemoryInfo(GCKind.Any);
        return Math.Max(0, memory.TotalAvailableMemoryBytes - memory.MemoryLoadBytes);
    }

    /// <summary>Chooses GpuLayerCount, ContextSize and SeqMax so that the model and its context fit.</summary>
    /// <remarks>
    /// With a negative GpuLayerCount, a context that the parameters do not set shrinks first, to no less than 4,096 tokens; then layers leave the GPU, and the context takes the rest of the memory.
    /// If no layer fits so, the context shrinks to what host memory holds. With a given GpuLayerCount, and on the CPU, the context shrinks, then the number of sequences.
    /// </remarks>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">Requested parameters; changed in place.</param>
    /// <param name="available">Free bytes; null: <see cref="Available"/>.</param>
    /// <returns>What was chosen and why; null if everything fits.</returns>
    /// <exception cref="NativeOutOfMemoryException">One sequence with a context of 256 tokens does not fit in host memory.</exception>
    /// <exception cref="OutOfDeviceMemoryException">One sequence with a context of 256 tokens does not fit in GPU memory.</exception>
    public static string? Apply(GgufFile file, ModelParams parameters, long? available = null)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(parameters);
        int layers = ModelLoader.UsableGpuLayers(parameters);
        long free = available ?? Available(parameters);
        return Apply(file, parameters, layers, free, layers != 0 ? AvailableHostBytes() : free);
    }

    /// <summary>Chooses as <see cref="Apply(GgufFile, ModelParams, long?)"/> does, for given devices.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">Requested parameters; changed in place.</param>
    /// <param name="gpuLayers">Layers that may be on the GPU; negative: all.</param>
    /// <param name="free">Free bytes of the GPU, or of host memory if no layer may be on the GPU.</param>
    /// <param name="hostFree">Free bytes of host memory.</param>
    internal static string? Apply(GgufFile file, ModelParams parameters, int gpuLayers, long free, long hostFree)
    {
        int all = LayerCount(file);
        var wanted = new FitChoice(gpuLayers < 0 ? all : Math.Min(gpuLayers, all), parameters.ContextSize is > 0 and var size ? size : TrainedContextSize(file), parameters.SeqMax);
        long Bytes(FitChoice choice) => Needed(file, parameters with { ContextSize = choice.Context, SeqMax = choice.Sequences }, choice.Layers);
        long needed = Bytes(wanted);
        var plan = new FitPlan(Bytes, (long)(free * Usable), (long)(hostFree * Usable));
        FitChoice? choice = plan.Choose(wanted, choosesLayers: parameters.GpuLayerCount < 0, choosesContext: parameters.ContextSize is null or 0);
        if (choice is null)
        {
            // Layers that may leave the GPU have left it: host memory is what lacks.
            bool onGpu = wanted.Layers != 0 && parameters.GpuLayerCount >= 0;
            (long lacking, long left) = onGpu ? (needed, free) : (Bytes(wanted with { Layers = 0 }), hostFree);
            string message = $"{MiB(lacking)} are needed and {MiB(left)} are free: not even a context of {FitPlan.Step} tokens fits. Use a smaller model{(onGpu ? " or fewer layers on the GPU" : "")}.";
            throw onGpu ? new OutOfDeviceMemoryException(message, lacking, left) : new NativeOutOfMemoryException(message, lacking);
        }

        if (choice == wanted)
        {
            return null;
        }

        var changes = new List<string>();
        if (choice.Layers != wanted.Layers)
        {
            parameters.GpuLayerCount = choice.Layers;
            changes.Add(choice.Layers == 0 ? "no layer fits on the GPU, so the CPU computes all" : $"{choice.Layers} of {all} layers are on the GPU");
        }

        if (choice.Context != wanted.Context)
        {
            parameters.ContextSize = choice.Context;
            changes.Add($"the context is reduced from {wanted.Context} to {choice.Context} tokens");
        }

        if (choice.Sequences != wanted.Sequences)
        {
            parameters.SeqMax = choice.Sequences;
            changes.Add($"sequences from {wanted.Sequences} to {choice.Sequences}");
        }

        string memory = wanted.Layers == 0 ? "" : choice.Layers == 0 ? " of host memory" : " of GPU memory";
        return $"{MiB(needed)} are needed and {MiB(free)} are free{(wanted.Layers == 0 ? "" : " on the GPU")}: {string.Join(" and ", changes)}, which needs {MiB(Bytes(choice))}{memory}";
    }

    /// <summary>The layers on the GPU, the context and the number of sequences of parameters, with the memory that they need.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">Model and context parameters.</param>
    public static string Describe(GgufFile file, ModelParams parameters)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(parameters);
        int layers = ModelLoader.UsableGpuLayers(parameters);
        int all = LayerCount(file);
        string where = layers == 0 ? "on the CPU" : layers < 0 || layers >= all ? $"with all {all} layers on the GPU" : $"with {layers} of {all} layers on the GPU";
        uint context = parameters.ContextSize is > 0 and var size ? size : TrainedContextSize(file);
        return $"a context of {context} tokens for {parameters.SeqMax} sequence{(parameters.SeqMax == 1 ? "" : "s")} {where} needs {MiB(Needed(file, parameters, layers))}; {MiB(Available(parameters))} are free";
    }

    private static int LayerCount(GgufFile file) => (int)(file.GetInteger($"{file.GetString("general.architecture")}.block_count") ?? 0);

    private static uint TrainedContextSize(GgufFile file) =>
        (uint)(file.GetInteger($"{file.GetString("general.architecture")}.context_length") ?? 0);

    private static string MiB(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1 << 20):N0} MiB");
}
