using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>The engine's log.</summary>
public static unsafe class NativeLog
{
    private static readonly Lock Gate = new();
    private static Action<EngineLogLevel, string>? s_listener;

    /// <summary>Sets the listener of the engine's log, which is called from any thread. Null, the default, discards the log.</summary>
    /// <remarks>Exceptions of the listener are dropped, because they must not cross native frames. The listener must not call this method.</remarks>
    public static void Listen(Action<EngineLogLevel, string>? listener)
    {
        lock (Gate)
        {
            NativeMethods.lk_log_set(null, null);  // returns after the previous listener's last call
            s_listener = listener;
            if (listener is not null)
            {
                NativeMethods.lk_log_set(&OnLine, null);
            }
        }
    }

    /// <summary>Adds a line to the engine's log.</summary>
    public static void Write(EngineLogLevel level, string text)
    {
        try
        {
            s_listener?.Invoke(level, text);
        }
        catch
        {
            // Dropped: see the remarks of Listen.
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void OnLine(lk_log_level level, byte* text, void* userData) => Write((EngineLogLevel)level, NativeStatus.Text(text));
}
