namespace LlamaKivi.Native;

/// <summary>What most of a file's weights are; the values are those of general.file_type.</summary>
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

    /// <summary>About 4.9 bits; what most people use.</summary>
    MOSTLY_Q4_K_M = 15,

    /// <summary>About 5.5 bits.</summary>
    MOSTLY_Q5_K_S = 16,

    /// <summary>About 5.7 bits.</summary>
    MOSTLY_Q5_K_M = 17,

    /// <summary>6.6 bits.</summary>
    MOSTLY_Q6_K = 18,

    /// <summary>16-bit brain floats.</summary>
    MOSTLY_BF16 = 32,
}
