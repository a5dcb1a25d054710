using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>
/// Forwards the progress of a long native call and stops the call on cancellation. Exceptions must not cross native frames: an
/// exception of the action is stored, the call is stopped, and <see cref="Check"/> rethrows it.
/// </summary>
internal sealed unsafe class ProgressCallback : IDisposable
{
    private readonly Action<float>? _action;
    private readonly CancellationToken _cancellationToken;
    private readonly string _path;
    private readonly GCHandle _handle;
    private ExceptionDispatchInfo? _failure;

    /// <param name="action">Receives the progress, 0 to 1.</param>
    /// <param name="path">The file that the call reads.</param>
    /// <param name="cancellationToken">Stops the call.</param>
    public ProgressCallback(Action<float>? action, string path, CancellationToken cancellationToken)
    {
        _path = path;
        _action = action;
        _cancellationToken = cancellationToken;
        _handle = GCHandle.Alloc(this);
    }

    public static delegate* unmanaged[Cdecl]<float, void*, int> Function => &OnProgress;

    public void* UserData => (void*)GCHandle.ToIntPtr(_handle);

    /// <summary>Rethrows the action's exception, or throws for a failed status.</summary>
    public void Check(lk_status status)
    {
        // Also after success: the exception may come from the last report, after which the engine no longer stops.
        _failure?.Throw();
        if (status != lk_status.LK_OK)
        {
            throw NativeStatus.LastError(status, _path, _cancellationToken);
        }
    }

    public void Dispose() => _handle.Free();

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnProgress(float fraction, void* userData)
    {
        var callback = (ProgressCallback)GCHandle.FromIntPtr((nint)userData).Target!;
        try
        {
            callback._action?.Invoke(fraction);
            return callback._cancellationToken.IsCancellationRequested ? 0 : 1;
        }
        catch (Exception e)
        {
            callback._failure = ExceptionDispatchInfo.Capture(e);
            return 0;
        }
    }
}
