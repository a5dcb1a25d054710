using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace LlamaKivi.Extensions;

/// <summary>Reads strings from native memory.</summary>
[SuppressMessage("Naming", "CA1720", Justification = "LLamaSharp's names.")]
public static class IntPtrExtensions
{
    /// <summary>NUL-terminated UTF-8 string at an address; a default value for a null address.</summary>
    public static string PtrToStringWithDefault(this IntPtr ptr, string defaultValue = "") => ptr.PtrToString() ?? defaultValue;

    /// <summary>NUL-terminated UTF-8 string at an address; null for a null address.</summary>
    public static string? PtrToString(this IntPtr ptr) => Marshal.PtrToStringUTF8(ptr);
}
