namespace LlamaKivi.Native;

// What LLamaSharp asks of a token with its view of a model.
public readonly partial record struct LLamaToken
{
    /// <summary>Whether the token controls the model and is not text.</summary>
    public bool IsControl(SafeLlamaModelHandle model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return IsControl(model.Vocab);
    }

    /// <summary>Whether the token controls the model and is not text.</summary>
    public bool IsControl(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.IsControl(_value);
    }

    /// <summary>Whether generation stops at the token.</summary>
    public bool IsEndOfGeneration(SafeLlamaModelHandle model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return IsEndOfGeneration(model.Vocab);
    }

    /// <summary>Whether generation stops at the token.</summary>
    public bool IsEndOfGeneration(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.IsEndOfGeneration(_value);
    }

    /// <summary>What kind of token it is.</summary>
    public LLamaTokenAttr GetAttributes(SafeLlamaModelHandle model)
    {
        ArgumentNullException.ThrowIfNull(model);
        return GetAttributes(model.Vocab);
    }

    /// <summary>What kind of token it is.</summary>
    public LLamaTokenAttr GetAttributes(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.AttributesOf(_value);
    }

    /// <summary>The token's score in the file: the logarithm of its probability in a SentencePiece vocabulary, 0 where there is none.</summary>
    public float GetScore(SafeLlamaModelHandle.Vocabulary vocab)
    {
        ArgumentNullException.ThrowIfNull(vocab);
        return vocab.Tokenizer.ScoreOf(_value);
    }
}
