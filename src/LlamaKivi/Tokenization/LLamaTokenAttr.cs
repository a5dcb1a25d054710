namespace LlamaKivi.Native;

/// <summary>Attributes of a token.</summary>
[Flags]
public enum LLamaTokenAttr
{
    /// <summary>No attributes known.</summary>
    Undefined = 0,

    /// <summary>Unknown token, for text without a token.</summary>
    Unknown = 1 << 0,

    /// <summary>Never produced by the tokenizer.</summary>
    Unused = 1 << 1,

    /// <summary>Plain text.</summary>
    Normal = 1 << 2,

    /// <summary>Control token.</summary>
    Control = 1 << 3,

    /// <summary>Added to the vocabulary; matched before tokenization.</summary>
    UserDefined = 1 << 4,

    /// <summary>A single byte.</summary>
    Byte = 1 << 5,

    /// <summary>Matched in normalized text.</summary>
    Normalized = 1 << 6,

    /// <summary>Absorbs white space on its left.</summary>
    LStrip = 1 << 7,

    /// <summary>Absorbs white space on its right.</summary>
    RStrip = 1 << 8,

    /// <summary>Matches whole words only.</summary>
    SingleWord = 1 << 9,
}

/// <summary>Tokenization algorithm.</summary>
public enum LLamaVocabType
{
    /// <summary>None: the file has no vocabulary.</summary>
    None = 0,

    /// <summary>SentencePiece BPE, as in Llama 2.</summary>
    SentencePiece = 1,

    /// <summary>Byte-level BPE, as in Llama 3 and Falcon.</summary>
    BytePairEncoding = 2,

    /// <summary>WordPiece, as in BERT; not implemented.</summary>
    WordPiece = 3,

    /// <summary>Unigram, as in T5; not implemented.</summary>
    Unigram = 4,

    /// <summary>RWKV; not implemented.</summary>
    RWKV = 5,

    /// <summary>PLaMo 2; not implemented.</summary>
    PLAMO2 = 6,
}

/// <summary>RoPE type.</summary>
public enum LLamaRopeType
{
    /// <summary>No RoPE.</summary>
    None = -1,

    /// <summary>Standard RoPE.</summary>
    Norm = 0,
}

/// <summary>Whether attention avoids materializing the score matrix; the engine always does.</summary>
public enum LLamaFlashAttentionType
{
    /// <summary>The engine decides.</summary>
    LLAMA_FLASH_ATTENTION_TYPE_AUTO = -1,

    /// <summary>Off.</summary>
    LLAMA_FLASH_ATTENTION_TYPE_DISABLED = 0,

    /// <summary>On.</summary>
    LLAMA_FLASH_ATTENTION_TYPE_ENABLED = 1,
}
