using System.Globalization;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Says before anything is loaded what a model and its context take of the memory, and lowers what is asked for until it fits.</summary>
public static class MemoryFit
{
    private const uint Step = 256;    // of the context size, tokens
    private const double Usable = 0.97;  // of what is free: the rest is for what others take meanwhile

    /// <summary>Bytes the model and a full context take: of the GPU's memory if layers are on it, otherwise of the host's.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">The model and the context.</param>
    /// <exception cref="ArgumentException">A parameter does not fit the model; the message says what would.</exception>
    public static long Needed(GgufFile file, ModelParams parameters)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(parameters);
        int gpuLayers = ModelLoader.UsableGpuLayers(parameters);
        MemoryEstimate e = ContextHandle.Estimate(file, ContextOptionsFactory.Create(parameters, KvCacheFallback.Of(file, parameters, out _), TrainedContextSize(file)), gpuLayers);
        return gpuLayers != 0 ? e.DeviceBytes : e.WeightBytes + e.CachePageBytes + e.CacheExactBytes + e.ScratchBytes;
    }

    /// <summary>Bytes that are free: of the GPU's memory if layers are on it, otherwise of the host's.</summary>
    /// <exception cref="DeviceException">RequireGpu is set, and there is no GPU to use.</exception>
    public static long Available(ModelParams parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        if (ModelLoader.UsableGpuLayers(parameters) != 0)
        {
            return NativeEngine.DescribeDevice().FreeBytes;
        }

        GCMemoryInfo memory = GC.GetGCMemoryInfo(GCKind.Any);
        return Math.Max(0, memory.TotalAvailableMemoryBytes - memory.MemoryLoadBytes);
    }

    /// <summary>Lowers ContextSize, and if that is not enough SeqMax, until the model and its context fit.</summary>
    /// <param name="file">The model's file.</param>
    /// <param name="parameters">What is asked for; changed to what fits.</param>
    /// <param name="available">Bytes that are free; null: <see cref="Available"/>.</param>
    /// <returns>What was done, in words; null if all fits as it is.</returns>
    /// <exception cref="NativeOutOfMemoryException">Not even one sequence with a context of 256 tokens fits in the host's memory.</exception>
    /// <exception cref="OutOfDeviceMemoryException">The same of the GPU's memory.</exception>
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

        // As many steps of the context as fit for all sequences; if none do, as many sequences as fit with one step.
        uint steps = Largest((context - 1) / Step, n => Fits(n * Step, sequences));
        uint kept = steps > 0 ? sequences : Largest(sequences, n => Fits(Math.Min(Step, context), n));
        if (kept == 0)
        {
            parameters.ContextSize = context;
            parameters.SeqMax = sequences;
            string message = $"{MiB(wanted)} are needed and {MiB(free)} are free: not even a context of {Step} tokens fits. Take a smaller model or fewer layers on the GPU.";
            throw ModelLoader.UsableGpuLayers(parameters) != 0 ? new OutOfDeviceMemoryException(message, wanted, free) : new NativeOutOfMemoryException(message, wanted);
        }

        Fits(steps > 0 ? steps * Step : Math.Min(Step, context), kept);
        string sequencesText = kept < sequences ? $" and sequences from {sequences} to {kept}" : "";
        return $"{MiB(wanted)} are needed and {MiB(free)} are free: the context is lowered from {context} to {parameters.ContextSize} tokens{sequencesText}, which take {MiB(Needed(file, parameters))}";
    }

    // The largest n of 1 to most that fits; 0 if none does. More takes more.
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
