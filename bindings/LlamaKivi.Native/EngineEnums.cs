namespace LlamaKivi.Native;

/// <summary>Outcome of a call of the native engine.</summary>
public enum EngineStatus
{
    /// <summary>The call succeeded.</summary>
    Ok = 0,

    /// <summary>An argument is out of range or contradicts another argument.</summary>
    InvalidArgument = 1,

    /// <summary>A file cannot be opened, read, mapped or written.</summary>
    IoError = 2,

    /// <summary>A file is not valid GGUF, or its tensors contradict its metadata.</summary>
    BadFile = 3,

    /// <summary>Valid input that this engine does not implement.</summary>
    Unsupported = 4,

    /// <summary>An allocation failed; the message states the requested size where it is known.</summary>
    OutOfMemory = 5,

    /// <summary>The KV cache is full; the message states used and needed tokens.</summary>
    CacheFull = 6,

    /// <summary>The call was cancelled; the context is unchanged.</summary>
    Cancelled = 7,

    /// <summary>An operation gave NaN or infinity; the message names layer and operation.</summary>
    NumericError = 8,

    /// <summary>A bug in the engine.</summary>
    InternalError = 9,

    /// <summary>A saved state is damaged, or belongs to another model or KV cache type.</summary>
    BadState = 10,

    /// <summary>A device allocation failed; the message states requested and free bytes.</summary>
    OutOfDeviceMemory = 11,

    /// <summary>No device is usable, or a driver call failed.</summary>
    DeviceError = 12,

    /// <summary>Another call uses the context; the message names it. Nothing was changed.</summary>
    Busy = 13,
}

/// <summary>Severity of a log line.</summary>
public enum EngineLogLevel
{
    /// <summary>A decision of the engine.</summary>
    Debug = 0,

    /// <summary>An object was loaded or created.</summary>
    Information = 1,

    /// <summary>Something is wrong, but the engine continues.</summary>
    Warning = 2,

    /// <summary>A call fails.</summary>
    Error = 3,
}

/// <summary>Type of a GGUF metadata value, numbered as in the file format.</summary>
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

    /// <summary>A bool, one byte.</summary>
    Bool = 7,

    /// <summary>UTF-8 text.</summary>
    String = 8,

    /// <summary>An array of values of one type.</summary>
    Array = 9,

    /// <summary>64 bits, unsigned.</summary>
    UInt64 = 10,

    /// <summary>64 bits, signed.</summary>
    Int64 = 11,

    /// <summary>64-bit floating point.</summary>
    Float64 = 12,
}
