using System.Diagnostics.CodeAnalysis;
namespace LlamaKivi.Native;

/// <summary>Information about the native engine. The first use loads the library.</summary>
public static unsafe class NativeEngine
{
    /// <summary>Version of the C interface, equal in the library and in these bindings.</summary>
    /// <exception cref="NativeLibraryNotFoundException">The library is missing or cannot be loaded.</exception>
    /// <exception cref="AbiMismatchException">The library has a different interface version.</exception>
    public static int AbiVersion => (int)NativeMethods.lk_abi_version();

    /// <summary>The engine's version, "major.minor.patch".</summary>
    public static string Version => NativeStatus.Text(NativeMethods.lk_version());

    /// <summary>The processor and the kernels selected for it ("AMD EPYC | AVX2").</summary>
    public static string CpuDescription => NativeStatus.Text(NativeMethods.lk_cpu_description());

    /// <summary>Describes a GPU.</summary>
    /// <param name="index">Number of the GPU, from 0.</param>
    /// <exception cref="DeviceException">The GPU does not exist or is not usable; the message says why.</exception>
    public static DeviceDescription DescribeDevice(int index = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        lk_device_info info;
        NativeStatus.Check(NativeMethods.lk_device_describe((uint)index, &info));
        return new DeviceDescription(
            NativeStatus.Text(info.name), NativeStatus.Text(info.driver), (int)info.capability, (int)info.n_processors, (long)info.memory_bytes, (long)info.free_bytes);
    }

    /// <summary>Describes a GPU if it is usable.</summary>
    /// <param name="device">The GPU, or null.</param>
    /// <param name="reason">Why the GPU is not usable, or null.</param>
    /// <param name="index">Number of the GPU, from 0.</param>
    public static bool TryDescribeDevice([NotNullWhen(true)] out DeviceDescription? device, [NotNullWhen(false)] out string? reason, int index = 0)
    {
        try
        {
            (device, reason) = (DescribeDevice(index), null);
            return true;
        }
        catch (DeviceException e)
        {
            (device, reason) = (null, e.Message);
            return false;
        }
    }

    /// <summary>The platform, the operating system and the .NET runtime. For display; does not load the library.</summary>
    public static string Platform => NativePlatform.Description;

    /// <summary>The paths searched for the library, in order, each with the reason why it is skipped. For display.</summary>
    public static IReadOnlyList<string> LibraryPaths =>
        [.. NativeLibraryLoader.Candidates(NativeLibraryLoader.Directory)
            .Select(path => File.Exists(path) ? NativePlatform.Mismatch(path, NativePlatform.Portable) is { } mismatch ? $"{path}: {mismatch}" : path : path + ": no such file")];

    /// <summary>Name of a cache type as users write it ("kivi2-paper"); null for an undefined value.</summary>
    internal static string? CacheTypeName(lk_cache_type type)
    {
        byte* name = NativeMethods.lk_cache_type_name(type);
        return name is null ? null : NativeStatus.Text(name);
    }

    /// <summary>Runs keys and values through a cache of one layer and one sequence, in one append, and overwrites them with the rows that attention would read.</summary>
    /// <param name="cache">Types, group, residual and sinks of the cache.</param>
    /// <param name="headCount">KV heads.</param>
    /// <param name="headSize">Elements per head.</param>
    /// <param name="keys">[tokens, KV heads, head size], overwritten.</param>
    /// <param name="values">The same shape, overwritten.</param>
    /// <exception cref="ArgumentException">A parameter is out of range, or the shapes differ.</exception>
    /// <exception cref="UnsupportedModelException">The cache types do not fit the head size.</exception>
    /// <exception cref="NumericErrorException">An element is NaN, infinite or out of the range of 16-bit floats.</exception>
    public static void CacheRoundTrip(ContextOptions cache, int headCount, int headSize, Span<float> keys, Span<float> values)
    {
        ArgumentNullException.ThrowIfNull(cache);
        ArgumentOutOfRangeException.ThrowIfLessThan(headCount, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(headSize, 1);
        int width = checked(headCount * headSize);
        if (keys.IsEmpty || keys.Length % width != 0 || values.Length != keys.Length)
        {
            throw new ArgumentException($"{keys.Length} key and {values.Length} value elements are not equal numbers of rows of {headCount} heads with {headSize} elements.", nameof(keys));
        }

        lk_cache_params parameters = cache.ToNative().cache;
        fixed (float* k = keys, v = values)
        {
            NativeStatus.Check(NativeMethods.lk_cache_round_trip(&parameters, (uint)headCount, (uint)headSize, (uint)(keys.Length / width), k, v));
        }
    }

    /// <summary>Name of a status ("LK_CACHE_FULL").</summary>
    internal static string StatusName(lk_status status) => NativeStatus.Text(NativeMethods.lk_status_name(status));
}

/// <summary>A GPU.</summary>
/// <param name="Name">Name, such as "NVIDIA H200".</param>
/// <param name="Driver">Versions of the driver and of the runtime.</param>
/// <param name="Capability">Compute capability, 10 * major + minor.</param>
/// <param name="Processors">Multiprocessors.</param>
/// <param name="MemoryBytes">Total memory.</param>
/// <param name="FreeBytes">Free memory at the time of the call.</param>
public sealed record DeviceDescription(string Name, string Driver, int Capability, int Processors, long MemoryBytes, long FreeBytes);
