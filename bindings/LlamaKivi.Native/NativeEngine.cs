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

    /// <summary>The name of a cache type as users write it ("kivi2-paper"); null for a value that is none.</summary>
    public static string? CacheTypeName(lk_cache_type type)
    {
        byte* name = NativeMethods.lk_cache_type_name(type);
        return name is null ? null : NativeStatus.Text(name);
    }

    /// <summary>The name of a status ("LK_CACHE_FULL").</summary>
    public static string StatusName(lk_status status) => NativeStatus.Text(NativeMethods.lk_status_name(status));
}
