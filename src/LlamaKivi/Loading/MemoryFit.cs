using System.Globalization;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Estimates the memory of a model and its context before loading, and reduces the context until both fit.</summary>
public static class MemoryFit
{
    private const uint Step = 256;    // granularity of the context size, in tokens
    private const double Usable = 0.97;  // fraction of the free memory; the rest is a reserve for other processes

    /// <summary>Bytes needed by the model and a full context: GPU memory if any layer is on the GPU, otherwise host memory.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">Model and context parameters.</param>
    /// <exception cref="ArgumentException">A parameter does not fit the model; the message gives valid values.</exception>
    public static long Needed(GgufFile file, ModelParams parameters)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(parameters);
        int gpuLayers = ModelLoader.UsableGpuLayers(parameters);
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

        // The figures are those of the last collection, which may be long ago.
        GC.Collect(0, GCCollectionMode.Forced, blocking: true);
        GCMemoryInfo memory = GC.GetGCMemoryInfo(GCKind.Any);
        return Math.Max(0, memory.TotalAvailableMemoryBytes - memory.MemoryLoadBytes);
    }

    /// <summary>Reduces ContextSize, then SeqMax, until the model and its context fit.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">Requested parameters; reduced in place.</param>
    /// <param name="available">Free bytes; null: <see cref="Available"/>.</param>
    /// <returns>A description of the reduction; null if everything fits.</returns>
    /// <exception cref="NativeOutOfMemoryException">One sequence with a context of 256 tokens does not fit in host memory.</exception>
    /// <exception cref="OutOfDeviceMemoryException">One sequence with a context of 256 tokens does not fit in GPU memory.</exception>
    public static string? Apply(GgufFile file, ModelParams parameters, long? available = null)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(parameters);
        long free = available ?? Available(parameters);
        long wanted = Needed(file, parameters);
        if (wanted <= free * Usable)
        {
            return null;
        }

        uint context = parameters.ContextSize ?? TrainedContextSize(file);
        uint sequences = parameters.SeqMax;
        bool Fits(uint contextSize, uint seqMax)
        {
            parameters.ContextSize = contextSize;
            parameters.SeqMax = seqMax;
            return Needed(file, parameters) <= free * Usable;
        }

        // The largest context that fits with all sequences; if none does, the most sequences that fit with one step.
        uint steps = Largest((context - 1) / Step, n => Fits(n * Step, sequences));
        uint kept = steps > 0 ? sequences : Largest(sequences, n => Fits(Math.Min(Step, context), n));
        if (kept == 0)
        {
            parameters.ContextSize = context;
            parameters.SeqMax = sequences;
            string message = $"{MiB(wanted)} are needed and {MiB(free)} are free: not even a context of {Step} tokens fits. Use a smaller model or fewer layers on the GPU.";
            throw ModelLoader.UsableGpuLayers(parameters) != 0 ? new OutOfDeviceMemoryException(message, wanted, free) : new NativeOutOfMemoryException(message, wanted);
        }

        Fits(steps > 0 ? steps * Step : Math.Min(Step, context), kept);
        string sequencesText = kept < sequences ? $" and sequences from {sequences} to {kept}" : "";
        return $"{MiB(wanted)} are needed and {MiB(free)} are free: the context is reduced from {context} to {parameters.ContextSize} tokens{sequencesText}, which needs {MiB(Needed(file, parameters))}";
    }

    // Largest n in 1..most that fits, by bisection; 0 if none. Memory grows with n.
    private static uint Largest(uint most, Func<uint, bool> fits)
    {
        uint low = 0;
        while (low < most)
        {
            uint middle = low + (most - low + 1) / 2;
            (low, most) = fits(middle) ? (middle, most) : (low, middle - 1);
        }

        return low;
    }

    private static uint TrainedContextSize(GgufFile file) =>
        (uint)(file.GetInteger($"{file.GetString("general.architecture")}.context_length") ?? 0);

    private static string MiB(long bytes) => string.Create(CultureInfo.InvariantCulture, $"{bytes / (double)(1 << 20):N0} MiB");
}
