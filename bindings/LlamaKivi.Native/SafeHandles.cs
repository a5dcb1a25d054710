using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Owns an opened GGUF file, or borrows the file of a model, which it then keeps alive.</summary>
internal sealed unsafe class SafeGgufHandle : SafeHandle
{
    private readonly SafeModelHandle? _owner;

    public SafeGgufHandle(lk_gguf* gguf)
        : base(0, ownsHandle: true) => SetHandle((nint)gguf);

    public SafeGgufHandle(SafeModelHandle owner)
        : base(0, ownsHandle: true)
    {
        bool added = false;
        owner.DangerousAddRef(ref added);
        _owner = owner;
        SetHandle((nint)NativeMethods.lk_model_gguf(owner.Pointer));
    }

    public override bool IsInvalid => handle == 0;

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
internal sealed unsafe class SafeModelHandle : SafeHandle
{
    public SafeModelHandle(lk_model* model)
        : base(0, ownsHandle: true) => SetHandle((nint)model);

    public override bool IsInvalid => handle == 0;

    public lk_model* Pointer => (lk_model*)handle;

    protected override bool ReleaseHandle()
    {
        NativeMethods.lk_model_free(Pointer);
        return true;
    }
}

/// <summary>Owns a context, and keeps its model alive.</summary>
internal sealed unsafe class SafeContextHandle : SafeHandle
{
    private readonly SafeModelHandle _model;

    public SafeContextHandle(lk_context* context, SafeModelHandle model)
        : base(0, ownsHandle: true)
    {
        bool added = false;
        model.DangerousAddRef(ref added);
        _model = model;
        SetHandle((nint)context);
    }

    public override bool IsInvalid => handle == 0;

    public lk_context* Pointer => (lk_context*)handle;

    protected override bool ReleaseHandle()
    {
        NativeMethods.lk_context_free(Pointer);
        _model.DangerousRelease();
        return true;
    }
}

/// <summary>Keeps a handle open for the length of a call, so that a concurrent Dispose waits for the call's end.</summary>
internal readonly ref struct HandleLease
{
    private readonly SafeHandle _handle;

    /// <exception cref="ObjectDisposedException">The handle is closed.</exception>
    public HandleLease(SafeHandle handle)
    {
        bool added = false;
        handle.DangerousAddRef(ref added);
        _handle = handle;
    }

    public void Dispose() => _handle.DangerousRelease();
}
