namespace LlamaKivi.Native;

/// <summary>Predominant weight type of a file; the values of general.file_type. <see cref="LLamaQuantizer"/> rejects types that the engine does not support.</summary>
public enum LLamaFtype
{
    /// <summary>32-bit floats.</summary>
    ALL_F32 = 0,

    /// <summary>16-bit floats.</summary>
    MOSTLY_F16 = 1,

    /// <summary>4.5 bits, blocks of 32 with a scale.</summary>
    MOSTLY_Q4_0 = 2,

    /// <summary>5 bits, blocks of 32 with a scale and an offset.</summary>
    MOSTLY_Q4_1 = 3,

    /// <summary>8.5 bits, blocks of 32 with a scale.</summary>
    MOSTLY_Q8_0 = 7,

    /// <summary>5.5 bits, blocks of 32 with a scale.</summary>
    MOSTLY_Q5_0 = 8,

    /// <summary>6 bits, blocks of 32 with a scale and an offset.</summary>
    MOSTLY_Q5_1 = 9,

    /// <summary>About 3 bits.</summary>
    MOSTLY_Q2_K = 10,

    /// <summary>About 3.5 bits.</summary>
    MOSTLY_Q3_K_S = 11,

    /// <summary>About 3.9 bits.</summary>
    MOSTLY_Q3_K_M = 12,

    /// <summary>About 4.3 bits.</summary>
    MOSTLY_Q3_K_L = 13,

    /// <summary>About 4.6 bits.</summary>
    MOSTLY_Q4_K_S = 14,

    /// <summary>About 4.9 bits; the most common choice.</summary>
    MOSTLY_Q4_K_M = 15,

    /// <summary>About 5.5 bits.</summary>
    MOSTLY_Q5_K_S = 16,

    /// <summary>About 5.7 bits.</summary>
    MOSTLY_Q5_K_M = 17,

    /// <summary>6.6 bits.</summary>
    MOSTLY_Q6_K = 18,

    /// <summary>About 2.06 bits; not available here.</summary>
    MOSTLY_IQ2_XXS = 19,

    /// <summary>About 2.3 bits; not available here.</summary>
    MOSTLY_IQ2_XS = 20,

    /// <summary>About 2.6 bits; not available here.</summary>
    MOSTLY_Q2_K_S = 21,

    /// <summary>About 3.3 bits; not available here.</summary>
    MOSTLY_IQ3_K_XS = 22,

    /// <summary>About 3.06 bits; not available here.</summary>
    MOSTLY_IQ3_XXS = 23,

    /// <summary>About 1.6 bits; not available here.</summary>
    MOSTLY_IQ1_S = 24,

    /// <summary>About 4.5 bits, not evenly spaced; not available here.</summary>
    MOSTLY_IQ4_NL = 25,

    /// <summary>About 3.4 bits; not available here.</summary>
    MOSTLY_IQ3_S = 26,

    /// <summary>About 3.7 bits; not available here.</summary>
    MOSTLY_IQ3_M = 27,

    /// <summary>About 2.5 bits; not available here.</summary>
    MOSTLY_IQ2_S = 28,

    /// <summary>About 2.7 bits; not available here.</summary>
    MOSTLY_IQ2_M = 29,

    /// <summary>About 4.25 bits, not evenly spaced; not available here.</summary>
    MOSTLY_IQ4_XS = 30,

    /// <summary>About 1.75 bits; not available here.</summary>
    MOSTLY_IQ1_M = 31,

    /// <summary>16-bit brain floats.</summary>
    MOSTLY_BF16 = 32,

    /// <summary>Ternary, about 1.7 bits; not available here.</summary>
    LLAMA_FTYPE_MOSTLY_TQ1_0 = 36,

    /// <summary>Ternary, about 2.1 bits; not available here.</summary>
    LLAMA_FTYPE_MOSTLY_TQ2_0 = 37,

    /// <summary>4-bit floats with shared scales, for experts; not available here.</summary>
    LLAMA_FTYPE_MOSTLY_MXFP4_MOE = 38,

    /// <summary>4-bit floats with 8-bit scales; not available here.</summary>
    LLAMA_FTYPE_MOSTLY_NVFP4 = 39,

    /// <summary>1 bit, blocks with a scale; not available here.</summary>
    LLAMA_FTYPE_MOSTLY_Q1_0 = 40,

    /// <summary>2 bits, blocks with a scale; not available here.</summary>
    LLAMA_FTYPE_MOSTLY_Q2_0 = 41,

    /// <summary>Flag for a type that was inferred instead of read from the file; cannot be written.</summary>
    GUESSED = 1024,
}
