namespace LlamaKivi.Native;

/// <summary>Number formats by their number in GGUF files. The engine does not have them all; what takes one refuses those.</summary>
public enum GGMLType
{
    /// <summary>32-bit floats.</summary>
    GGML_TYPE_F32 = 0,

    /// <summary>16-bit floats.</summary>
    GGML_TYPE_F16 = 1,

    /// <summary>4 bits, blocks of 32 with a scale.</summary>
    GGML_TYPE_Q4_0 = 2,

    /// <summary>4 bits, blocks of 32 with a scale and an offset.</summary>
    GGML_TYPE_Q4_1 = 3,

    /// <summary>5 bits, blocks of 32 with a scale.</summary>
    GGML_TYPE_Q5_0 = 6,

    /// <summary>5 bits, blocks of 32 with a scale and an offset.</summary>
    GGML_TYPE_Q5_1 = 7,

    /// <summary>8 bits, blocks of 32 with a scale.</summary>
    GGML_TYPE_Q8_0 = 8,

    /// <summary>8 bits, blocks of 32 with a scale and a sum; of no file.</summary>
    GGML_TYPE_Q8_1 = 9,

    /// <summary>2 bits, blocks of 256.</summary>
    GGML_TYPE_Q2_K = 10,

    /// <summary>3 bits, blocks of 256.</summary>
    GGML_TYPE_Q3_K = 11,

    /// <summary>4 bits, blocks of 256.</summary>
    GGML_TYPE_Q4_K = 12,

    /// <summary>5 bits, blocks of 256.</summary>
    GGML_TYPE_Q5_K = 13,

    /// <summary>6 bits, blocks of 256.</summary>
    GGML_TYPE_Q6_K = 14,

    /// <summary>8 bits, blocks of 256; of no file.</summary>
    GGML_TYPE_Q8_K = 15,

    /// <summary>8-bit integers.</summary>
    GGML_TYPE_I8 = 16,

    /// <summary>16-bit integers.</summary>
    GGML_TYPE_I16 = 17,

    /// <summary>32-bit integers.</summary>
    GGML_TYPE_I32 = 18,

    /// <summary>No format: the number of formats there were once.</summary>
    GGML_TYPE_COUNT = 19,

    /// <summary>16-bit brain floats.</summary>
    GGML_TYPE_BF16 = 30,
}

/// <summary>How a model is split over devices.</summary>
public enum GPUSplitMode
{
    /// <summary>Not split.</summary>
    None = 0,

    /// <summary>By layers.</summary>
    Layer = 1,

    /// <summary>By rows.</summary>
    Row = 2,

    /// <summary>By tensors.</summary>
    Tensor = 3,
}

/// <summary>How the embeddings of a text's tokens become one.</summary>
public enum LLamaPoolingType
{
    /// <summary>As the model says.</summary>
    Unspecified = -1,

    /// <summary>They do not: one for each token.</summary>
    None = 0,

    /// <summary>Their mean.</summary>
    Mean = 1,

    /// <summary>The first token's.</summary>
    CLS = 2,

    /// <summary>The last token's.</summary>
    Last = 3,

    /// <summary>A rank.</summary>
    Rank = 4,
}

/// <summary>Which tokens attend to which.</summary>
public enum LLamaAttentionType
{
    /// <summary>As the model says.</summary>
    Unspecified = -1,

    /// <summary>To those before.</summary>
    Causal = 0,

    /// <summary>To all.</summary>
    NonCausal = 1,
}

/// <summary>What a context is for.</summary>
public enum LLamaContextType
{
    /// <summary>Text.</summary>
    Default = 0,

    /// <summary>Prediction of several tokens. Refused: no model of the engine does it.</summary>
    Mtp = 1,
}

/// <summary>How a model's file is loaded. 1 and 2 combine to 3.</summary>
public enum LLamaLoadMode
{
    /// <summary>Weights are read into memory.</summary>
    None = 0,

    /// <summary>Weights stay in the mapped file.</summary>
    MemoryMap = 1,

    /// <summary>Weights are read into memory. A hint: to lock it.</summary>
    MemoryLock = 2,

    /// <summary>Weights stay in the mapped file. A hint: to lock its memory.</summary>
    MemoryMapAndLock = 3,

    /// <summary>Weights are read into memory. A hint: to read past the system's cache.</summary>
    DirectIO = 4,
}

/// <summary>How rotary position embeddings are stretched.</summary>
public enum RopeScalingType
{
    /// <summary>As the model says.</summary>
    Unspecified = -1,

    /// <summary>They are not.</summary>
    None = 0,

    /// <summary>Evenly.</summary>
    Linear = 1,

    /// <summary>YaRN.</summary>
    Yarn = 2,

    /// <summary>LongRope.</summary>
    LongRope = 3,
}
