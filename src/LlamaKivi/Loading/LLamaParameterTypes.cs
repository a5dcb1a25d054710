namespace LlamaKivi.Native;

/// <summary>Tensor types, with their numbers in GGUF files. Methods reject types that the engine does not support.</summary>
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

    /// <summary>8 bits, blocks of 32 with a scale and a sum; never in files.</summary>
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

    /// <summary>8 bits, blocks of 256; never in files.</summary>
    GGML_TYPE_Q8_K = 15,

    /// <summary>8-bit integers.</summary>
    GGML_TYPE_I8 = 16,

    /// <summary>16-bit integers.</summary>
    GGML_TYPE_I16 = 17,

    /// <summary>32-bit integers.</summary>
    GGML_TYPE_I32 = 18,

    /// <summary>Not a type; kept for compatibility.</summary>
    GGML_TYPE_COUNT = 19,

    /// <summary>16-bit brain floats.</summary>
    GGML_TYPE_BF16 = 30,
}

/// <summary>Pooling of token embeddings into one embedding per text.</summary>
public enum LLamaPoolingType
{
    /// <summary>The model's pooling type.</summary>
    Unspecified = -1,

    /// <summary>No pooling: one embedding per token.</summary>
    None = 0,

    /// <summary>Mean of the token embeddings.</summary>
    Mean = 1,

    /// <summary>Embedding of the first token.</summary>
    CLS = 2,

    /// <summary>Embedding of the last token.</summary>
    Last = 3,

    /// <summary>Score of a reranking model.</summary>
    Rank = 4,
}

/// <summary>Attention mask.</summary>
public enum LLamaAttentionType
{
    /// <summary>The model's attention type.</summary>
    Unspecified = -1,

    /// <summary>A token attends to itself and earlier tokens.</summary>
    Causal = 0,

    /// <summary>A token attends to all tokens.</summary>
    NonCausal = 1,
}

/// <summary>Purpose of a context.</summary>
public enum LLamaContextType
{
    /// <summary>Text generation and embeddings.</summary>
    Default = 0,

    /// <summary>Prediction of several tokens. Refused: no supported model predicts several tokens.</summary>
    Mtp = 1,
}

/// <summary>How a model's file is loaded. 1 and 2 combine to 3.</summary>
public enum LLamaLoadMode
{
    /// <summary>Weights are read into memory.</summary>
    None = 0,

    /// <summary>Weights stay in the mapped file.</summary>
    MemoryMap = 1,

    /// <summary>Weights are read into memory, which is not locked.</summary>
    MemoryLock = 2,

    /// <summary>Weights stay in the mapped file, which is not locked in memory.</summary>
    MemoryMapAndLock = 3,

    /// <summary>Weights are read into memory, through the system's file cache.</summary>
    DirectIO = 4,
}

/// <summary>RoPE scaling method.</summary>
public enum RopeScalingType
{
    /// <summary>The model's scaling.</summary>
    Unspecified = -1,

    /// <summary>No scaling.</summary>
    None = 0,

    /// <summary>Linear scaling of positions.</summary>
    Linear = 1,

    /// <summary>YaRN.</summary>
    Yarn = 2,

    /// <summary>LongRope.</summary>
    LongRope = 3,
}
