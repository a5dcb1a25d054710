using System.Diagnostics.CodeAnalysis;
namespace LlamaKivi.Native;

/// <summary>Facts about the native engine. The first use loads the library.</summary>
public static unsafe class NativeEngine
{
    /// <summary>The version of the C interface, the same in the library and in these bindings.</summary>
    /// <exception cref="NativeLibraryNotFoundException">The library is missing or cannot be loaded.</exception>
    /// <exception cref="AbiMismatchException">The library has another interface version.</exception>
    public static int AbiVersion => (int)NativeMethods.lk_abi_version();

    /// <summary>The engine's version, "major.minor.patch".</summary>
    public static string Version => NativeStatus.Text(NativeMethods.lk_version());

    /// <summary>The processor and the kernels chosen for it.</summary>
    public static string CpuDescription => NativeStatus.Text(NativeMethods.lk_cpu_description());

    /// <summary>Describes a GPU.</summary>
    /// <param name="index">Its number, from 0.</param>
    /// <exception cref="DeviceException">There is none of that number; the message says why.</exception>
    public static DeviceDescription DescribeDevice(int index = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        lk_device_info info;
        NativeStatus.Check(NativeMethods.lk_device_describe((uint)index, &info));
        return new DeviceDescription(
            NativeStatus.Text(info.name), NativeStatus.Text(info.driver), (int)info.capability, (int)info.n_processors, (long)info.memory_bytes, (long)info.free_bytes);
    }

    /// <summary>Describes a GPU, if there is one to use.</summary>
    /// <param name="device">The GPU.</param>
    /// <param name="reason">Why there is none.</param>
    /// <param name="index">Its number, from 0.</param>
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

    /// <summary>Where the library is looked for, in order, with what each place has; for people.</summary>
    public static IReadOnlyList<string> LibraryPaths =>
        [.. NativeLibraryLoader.Candidates(Environment.GetEnvironmentVariable(NativeLibraryLoader.DirectoryVariable))
            .Select(path => File.Exists(path) ? path : path + " (no such file)")];

    /// <summary>The name of a cache type as users write it ("kivi2-paper"); null for a value that is none.</summary>
    internal static string? CacheTypeName(lk_cache_type type)
    {
        byte* name = NativeMethods.lk_cache_type_name(type);
        return name is null ? null : NativeStatus.Text(name);
    }

    /// <summary>Puts keys and values through a cache of one layer and one sequence, as one call: they become what attention would see of them afterwards.</summary>
    /// <param name="cache">The cache's types, group, residual and sinks.</param>
    /// <param name="headCount">KV heads.</param>
    /// <param name="headSize">Elements of a head.</param>
    /// <param name="keys">[tokens, KV heads, head size], changed in place.</param>
    /// <param name="values">The same shape, changed in place.</param>
    /// <exception cref="ArgumentException">A parameter is out of range, or the shapes differ.</exception>
    /// <exception cref="UnsupportedModelException">The cache types do not fit the head size.</exception>
    /// <exception cref="NumericErrorException">A number is NaN, infinite or out of the range of 16-bit floats.</exception>
    public static void CacheRoundTrip(ContextOptions cache, int headCount, int headSize, Span<float> keys, Span<float> values)
    {
        ArgumentNullException.ThrowIfNull(cache);
        ArgumentOutOfRangeException.ThrowIfLessThan(headCount, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(headSize, 1);
        int width = checked(headCount * headSize);
        if (keys.IsEmpty || keys.Length % width != 0 || values.Length != keys.Length)
        {
            throw new ArgumentException($"{keys.Length} keys and {values.Length} values are no rows of {headCount} heads of {headSize}.", nameof(keys));
        }

        lk_cache_params parameters = cache.ToNative().cache;
        fixed (float* k = keys, v = values)
        {
            NativeStatus.Check(NativeMethods.lk_cache_round_trip(&parameters, (uint)headCount, (uint)headSize, (uint)(keys.Length / width), k, v));
        }
    }

    /// <summary>The name of a status ("LK_CACHE_FULL").</summary>
    internal static string StatusName(lk_status status) => NativeStatus.Text(NativeMethods.lk_status_name(status));
}

/// <summary>A GPU.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Driver">The driver's and the runtime's versions.</param>
/// <param name="Capability">Compute capability: 10 times the major number, plus the minor one.</param>
/// <param name="Processors">Multiprocessors.</param>
/// <param name="MemoryBytes">Its memory.</param>
/// <param name="FreeBytes">Of it, what is free at this moment.</param>
public sealed record DeviceDescription(string Name, string Driver, int Capability, int Processors, long MemoryBytes, long FreeBytes);
