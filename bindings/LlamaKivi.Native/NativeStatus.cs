using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Turns status codes into exceptions.</summary>
internal static unsafe class NativeStatus
{
    /// <summary>Throws for every status but <see cref="lk_status.LK_OK"/>. Call it on the thread that made the call.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Check(lk_status status)
    {
        if (status != lk_status.LK_OK)
        {
            // The message is thread-local and lives until this thread's next call.
            throw ToException(status, Text(NativeMethods.lk_last_error()));
        }
    }

    public static Exception ToException(lk_status status, string message, CancellationToken cancellationToken = default) => status switch
    {
        lk_status.LK_INVALID_ARGUMENT => new ArgumentException(message),
        lk_status.LK_IO_ERROR or lk_status.LK_BAD_FILE => new ModelLoadException(status, message),
        lk_status.LK_UNSUPPORTED => new UnsupportedModelException(message),
        lk_status.LK_OUT_OF_MEMORY => new NativeOutOfMemoryException(message),
        lk_status.LK_CACHE_FULL => new KvCacheFullException(message),
        lk_status.LK_CANCELLED => new OperationCanceledException(message, cancellationToken),
        lk_status.LK_BAD_STATE => new StateLoadException(message),
        lk_status.LK_NUMERIC_ERROR => new NumericErrorException(message),
        _ => new LlamaKiviException(status, message),
    };

    /// <summary>Copies a NUL-terminated UTF-8 string; NULL gives an empty one.</summary>
    public static string Text(byte* utf8) => Marshal.PtrToStringUTF8((nint)utf8) ?? "";
}
