namespace LlamaKivi.Native;

/// <summary>What a call of the native engine returned.</summary>
public enum EngineStatus
{
    /// <summary>The call succeeded.</summary>
    Ok = 0,

    /// <summary>An argument is out of range or inconsistent with another.</summary>
    InvalidArgument = 1,

    /// <summary>A file cannot be opened, read, mapped or written.</summary>
    IoError = 2,

    /// <summary>A file is not valid GGUF, or its tensors do not fit its metadata.</summary>
    BadFile = 3,

    /// <summary>The input is valid, but the engine does not implement it.</summary>
    Unsupported = 4,

    /// <summary>An allocation failed; the message gives the size.</summary>
    OutOfMemory = 5,

    /// <summary>The KV cache has no room; the message gives used and needed tokens.</summary>
    CacheFull = 6,

    /// <summary>The call was cancelled; the context is as before.</summary>
    Cancelled = 7,

    /// <summary>A computation gave NaN or infinity; the message names layer and operation.</summary>
    NumericError = 8,

    /// <summary>A defect of the engine.</summary>
    InternalError = 9,

    /// <summary>A saved state is damaged, or belongs to another model or another kind of KV cache.</summary>
    BadState = 10,

    /// <summary>An allocation on a device failed; the message gives the size asked and the size free.</summary>
    OutOfDeviceMemory = 11,

    /// <summary>There is no usable device, or a call of its driver failed.</summary>
    DeviceError = 12,

    /// <summary>Another call uses the context; the message names it. Nothing was done.</summary>
    Busy = 13,
}

/// <summary>Severity of a line of the engine's log.</summary>
public enum EngineLogLevel
{
    /// <summary>A decision of the engine.</summary>
    Debug = 0,

    /// <summary>An object was loaded or created.</summary>
    Information = 1,

    /// <summary>Something is wrong, and the engine continues.</summary>
    Warning = 2,

    /// <summary>A call fails.</summary>
    Error = 3,
}

/// <summary>Type of a GGUF metadata value, with the file format's numbers.</summary>
public enum GgufValueType
{
    /// <summary>8 bits, unsigned.</summary>
    UInt8 = 0,

    /// <summary>8 bits, signed.</summary>
    Int8 = 1,

    /// <summary>16 bits, unsigned.</summary>
    UInt16 = 2,

    /// <summary>16 bits, signed.</summary>
    Int16 = 3,

    /// <summary>32 bits, unsigned.</summary>
    UInt32 = 4,

    /// <summary>32 bits, signed.</summary>
    Int32 = 5,

    /// <summary>32-bit floating point.</summary>
    Float32 = 6,

    /// <summary>A truth value, one byte.</summary>
    Bool = 7,

    /// <summary>UTF-8 text.</summary>
    String = 8,

    /// <summary>Values of one type.</summary>
    Array = 9,

    /// <summary>64 bits, unsigned.</summary>
    UInt64 = 10,

    /// <summary>64 bits, signed.</summary>
    Int64 = 11,

    /// <summary>64-bit floating point.</summary>
    Float64 = 12,
}
