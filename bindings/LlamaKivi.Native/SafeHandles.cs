using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>A handle of an engine object.</summary>
internal abstract class EngineHandle() : SafeHandle(0, ownsHandle: true)
{
    /// <summary>Name of the public type that owns the handle, for errors about use after disposal.</summary>
    public abstract string Owner { get; set; }

    /// <summary>Whether the handle was disposed. It stays open until all calls that use it have ended.</summary>
    public bool IsDisposed { get; private set; }

    public override bool IsInvalid => handle == 0;

    public ObjectDisposedException DisposedError() => new(Owner);

    protected override void Dispose(bool disposing)
    {
        IsDisposed = true;
        base.Dispose(disposing);
    }
}

/// <summary>Owns an opened GGUF file, or refers to a model's file and keeps the model alive.</summary>
internal sealed unsafe class SafeGgufHandle : EngineHandle
{
    private readonly SafeModelHandle? _owner;

    public SafeGgufHandle(lk_gguf* gguf) => SetHandle((nint)gguf);

    public SafeGgufHandle(SafeModelHandle owner)
    {
        using var lease = new HandleLease(owner);
        bool added = false;
        owner.DangerousAddRef(ref added);
        _owner = owner;
        SetHandle((nint)NativeMethods.lk_model_gguf(owner.Pointer));
    }

    public override string Owner
    {
        get => _owner?.Owner ?? field;
        set;
    } = typeof(GgufFile).FullName!;

    public lk_gguf* Pointer => (lk_gguf*)handle;

    protected override bool ReleaseHandle()
    {
        if (_owner is null)
        {
            NativeMethods.lk_gguf_free(Pointer);
        }
        else
        {
            _owner.DangerousRelease();
        }

        return true;
    }
}

/// <summary>Owns a reference to a loaded model.</summary>
internal sealed unsafe class SafeModelHandle : EngineHandle
{
    public SafeModelHandle(lk_model* model) => SetHandle((nint)model);

    public override string Owner { get; set; } = typeof(ModelHandle).FullName!;

    public lk_model* Pointer => (lk_model*)handle;

    protected override bool ReleaseHandle()
    {
        NativeMethods.lk_model_free(Pointer);
        return true;
    }
}

/// <summary>Owns a context and keeps its model alive.</summary>
internal sealed unsafe class SafeContextHandle : EngineHandle
{
    private readonly SafeModelHandle _model;

    public SafeContextHandle(lk_context* context, SafeModelHandle model)
    {
        bool added = false;
        model.DangerousAddRef(ref added);
        _model = model;
        SetHandle((nint)context);
    }

    public override string Owner { get; set; } = typeof(ContextHandle).FullName!;

    public lk_context* Pointer => (lk_context*)handle;

    protected override bool ReleaseHandle()
    {
        NativeMethods.lk_context_free(Pointer);
        _model.DangerousRelease();
        return true;
    }
}

/// <summary>Keeps a handle open during a call. A concurrent Dispose takes effect when the call ends.</summary>
internal readonly ref struct HandleLease
{
    private readonly EngineHandle _handle;

    /// <exception cref="ObjectDisposedException">The handle was disposed.</exception>
    public HandleLease(EngineHandle handle)
    {
        bool added = false;
        try
        {
            handle.DangerousAddRef(ref added);
        }
        catch (ObjectDisposedException)
        {
            throw handle.DisposedError();
        }

        if (handle.IsDisposed)
        {
            handle.DangerousRelease();
            throw handle.DisposedError();
        }

        _handle = handle;
    }

    public void Dispose() => _handle.DangerousRelease();
}
