using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>The engine's log.</summary>
public static unsafe class NativeLog
{
    private static readonly Lock Gate = new();
    private static Action<EngineLogLevel, string>? s_listener;

    /// <summary>Sends the engine's log to a listener, which any thread may call; null: nowhere, as at the start.</summary>
    /// <remarks>What a listener throws is dropped: an exception must not cross the engine. It must not call this method.</remarks>
    public static void Listen(Action<EngineLogLevel, string>? listener)
    {
        lock (Gate)
        {
            NativeMethods.lk_log_set(null, null);  // returns after the last call of the one before
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
            // See the remarks of Listen.
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void OnLine(lk_log_level level, byte* text, void* userData) => Write((EngineLogLevel)level, NativeStatus.Text(text));
}
