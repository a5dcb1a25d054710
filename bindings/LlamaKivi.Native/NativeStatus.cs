using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Turns status codes into exceptions.</summary>
internal static unsafe class NativeStatus
{
    /// <summary>Throws for every status except <see cref="lk_status.LK_OK"/>. Must run on the thread of the native call.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Check(lk_status status)
    {
        if (status != lk_status.LK_OK)
        {
            // The message is thread-local and valid until this thread's next call.
            throw LastError(status);
        }
    }

    /// <summary>Creates the exception for the calling thread's last failed call. path: the model's file, if any. Must run on the thread of the native call.</summary>
    public static Exception LastError(lk_status status, string path = "", CancellationToken cancellationToken = default)
    {
        string message = ParameterNames.Translate(Text(NativeMethods.lk_last_error()));
        ulong needed, available;
        NativeMethods.lk_last_error_amounts(&needed, &available);
        return ToException(status, message, (long)needed, (long)available, path, cancellationToken);
    }

    public static Exception ToException(
        lk_status status, string message, long needed = 0, long available = 0, string path = "", CancellationToken cancellationToken = default) => status switch
        {
            lk_status.LK_INVALID_ARGUMENT => new ArgumentException(message),
            lk_status.LK_IO_ERROR or lk_status.LK_BAD_FILE => new ModelLoadException((EngineStatus)status, message, path),
            lk_status.LK_UNSUPPORTED => new UnsupportedModelException(message, path),
            lk_status.LK_OUT_OF_MEMORY => new NativeOutOfMemoryException(message, needed),
            lk_status.LK_CACHE_FULL => new KvCacheFullException(message, needed, available),
            lk_status.LK_CANCELLED => new OperationCanceledException(message, cancellationToken),
            lk_status.LK_BAD_STATE => new StateLoadException(message),
            lk_status.LK_OUT_OF_DEVICE_MEMORY => new OutOfDeviceMemoryException(message, needed, available),
            lk_status.LK_DEVICE_ERROR => new DeviceException(message),
            lk_status.LK_BUSY => new ContextBusyException(message),
            lk_status.LK_NUMERIC_ERROR => new NumericErrorException(message),
            _ => new LlamaKiviException((EngineStatus)status, message),
        };

    /// <summary>Copies a NUL-terminated UTF-8 string; NULL becomes an empty string.</summary>
    public static string Text(byte* utf8) => Marshal.PtrToStringUTF8((nint)utf8) ?? "";
}
