using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace LlamaKivi.Extensions;

/// <summary>Texts at native addresses.</summary>
[SuppressMessage("Naming", "CA1720", Justification = "LLamaSharp's names.")]
public static class IntPtrExtensions
{
    /// <summary>The NUL-terminated UTF-8 text at an address; a default if the address is null.</summary>
    public static string PtrToStringWithDefault(this IntPtr ptr, string defaultValue = "") => ptr.PtrToString() ?? defaultValue;

    /// <summary>The NUL-terminated UTF-8 text at an address; null if the address is null.</summary>
    public static string? PtrToString(this IntPtr ptr) => Marshal.PtrToStringUTF8(ptr);
}
