namespace LlamaKivi.Native;

/// <summary>What kind of token a token is.</summary>
[Flags]
public enum LLamaTokenAttr
{
    /// <summary>Not known.</summary>
    Undefined = 0,

    /// <summary>Stands for text that no token has.</summary>
    Unknown = 1 << 0,

    /// <summary>Never given by the tokenizer.</summary>
    Unused = 1 << 1,

    /// <summary>Text.</summary>
    Normal = 1 << 2,

    /// <summary>Controls the model.</summary>
    Control = 1 << 3,

    /// <summary>Added to the vocabulary; matched before the text is cut.</summary>
    UserDefined = 1 << 4,

    /// <summary>One byte.</summary>
    Byte = 1 << 5,

    /// <summary>Its text is normalized first.</summary>
    Normalized = 1 << 6,

    /// <summary>Takes white space on its left.</summary>
    LStrip = 1 << 7,

    /// <summary>Takes white space on its right.</summary>
    RStrip = 1 << 8,

    /// <summary>Matches whole words alone.</summary>
    SingleWord = 1 << 9,
}

/// <summary>How a vocabulary cuts text.</summary>
public enum LLamaVocabType
{
    /// <summary>Not at all: there is no vocabulary.</summary>
    None = 0,

    /// <summary>SentencePiece, as Llama 2.</summary>
    SentencePiece = 1,

    /// <summary>Byte pair encoding, as Llama 3 and Falcon.</summary>
    BytePairEncoding = 2,

    /// <summary>WordPiece, as BERT; not implemented.</summary>
    WordPiece = 3,

    /// <summary>Unigram, as T5; not implemented.</summary>
    Unigram = 4,

    /// <summary>RWKV; not implemented.</summary>
    RWKV = 5,

    /// <summary>PLaMo 2; not implemented.</summary>
    PLAMO2 = 6,
}

/// <summary>How a model rotates positions.</summary>
public enum LLamaRopeType
{
    /// <summary>Not at all.</summary>
    None = -1,

    /// <summary>By rotary position embeddings.</summary>
    Norm = 0,
}

/// <summary>Whether attention is computed without its matrix of scores in memory; the engine always does.</summary>
public enum LLamaFlashAttentionType
{
    /// <summary>As the engine likes.</summary>
    LLAMA_FLASH_ATTENTION_TYPE_AUTO = -1,

    /// <summary>No.</summary>
    LLAMA_FLASH_ATTENTION_TYPE_DISABLED = 0,

    /// <summary>Yes.</summary>
    LLAMA_FLASH_ATTENTION_TYPE_ENABLED = 1,
}
