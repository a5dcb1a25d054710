namespace LlamaKivi.Native;

// LLamaSharp's token properties that take a model handle.
public readonly partial record struct LLamaToken
{
    /// <summary>Whether the token is a control token.</summary>
    public bool IsControl(SafeLlamaModelHandle model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return IsControl(model.Vocab);
    }

    /// <summary>Whether the token is a control token.</summary>
    public bool IsControl(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.IsControl(_value);
    }

    /// <summary>Whether the token ends generation.</summary>
    public bool IsEndOfGeneration(SafeLlamaModelHandle model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return IsEndOfGeneration(model.Vocab);
    }

    /// <summary>Whether the token ends generation.</summary>
    public bool IsEndOfGeneration(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.IsEndOfGeneration(_value);
    }

    /// <summary>Attributes of the token.</summary>
    public LLamaTokenAttr GetAttributes(SafeLlamaModelHandle model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return GetAttributes(model.Vocab);
    }

    /// <summary>Attributes of the token.</summary>
    public LLamaTokenAttr GetAttributes(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.AttributesOf(_value);
    }

    /// <summary>Score of the token: its log probability in a SentencePiece vocabulary, otherwise 0.</summary>
    public float GetScore(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.ScoreOf(_value);
    }
}
