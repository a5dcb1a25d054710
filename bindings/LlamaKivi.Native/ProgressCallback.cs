using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>
/// Takes progress from a long native call and stops it on cancellation. An exception must not cross native frames: what the
/// action throws is kept, the call is stopped, and <see cref="Check"/> rethrows it.
/// </summary>
internal sealed unsafe class ProgressCallback : IDisposable
{
    private readonly Action<float>? _action;
    private readonly CancellationToken _cancellationToken;
    private readonly string _path;
    private readonly GCHandle _handle;
    private ExceptionDispatchInfo? _failure;

    /// <param name="action">Takes the progress, 0 to 1.</param>
    /// <param name="path">The file the call is about.</param>
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

    /// <summary>Throws what the action threw, or what the call's status says.</summary>
    public void Check(lk_status status)
    {
        // Also after success: the exception may come from the last report, which the engine does not answer any more.
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
