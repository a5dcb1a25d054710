using System.Globalization;
using LlamaKivi.Native;

namespace LlamaKivi.Tokenization;

/// <summary>Validated tokens of a GGUF file and their types.</summary>
internal sealed class Vocabulary
{
    private readonly GgufFile _file;

    public Vocabulary(GgufFile file)
    {
        _file = file;
        Texts = file.GetStrings("tokenizer.ggml.tokens") is { Length: > 0 } texts
            ? texts
            : throw Bad("tokenizer.ggml.tokens is missing, empty, or not an array of strings");
        Types = ReadTypes();
        Size = Texts.Length;
        Ids = new Dictionary<string, int>(Texts.Length, StringComparer.Ordinal);
        for (int id = 0; id < Texts.Length; id++)
        {
            // Duplicate texts: the last id wins, but a plain token wins over a special one.
            if (!IsSpecial(id) || !Ids.TryGetValue(Texts[id], out int other) || IsSpecial(other))
            {
                Ids[Texts[id]] = id;
            }
        }
    }

    private Vocabulary(GgufFile file, int size)
    {
        _file = file;
        Size = size;
        Texts = [];
        Types = [];
        Ids = [];
    }

    /// <summary>Number of token ids.</summary>
    public int Size { get; }

    /// <summary>[id]</summary>
    public string[] Texts { get; }

    /// <summary>[id]</summary>
    public TokenType[] Types { get; }

    public Dictionary<string, int> Ids { get; }

    public string? Pre => _file.GetString("tokenizer.ggml.pre");

    public static ModelLoadException Bad(string problem) =>
        new(EngineStatus.BadFile, $"the tokenizer cannot be used: {problem}.");

    /// <summary>Ids of a file without token texts.</summary>
    public static Vocabulary WithoutTexts(GgufFile file)
    {
        string key = file.GetString("general.architecture") + ".vocab_size";
        GgufTensor? embedding = file.Tensors.FirstOrDefault(tensor => tensor.Name == "token_embd.weight");
        long size = file.GetInteger(key) ?? embedding?.Shape.ElementAtOrDefault(1)
            ?? throw Bad($"tokenizer.ggml.model is 'no_vocab', and neither {key} nor token_embd.weight gives the number of tokens");
        return size is > 0 and <= int.MaxValue ? new Vocabulary(file, (int)size) : throw Bad($"{key} is {size}; expected 1 to {int.MaxValue}");
    }

    /// <summary>Number of UTF-8 byte values without an id.</summary>
    /// <param name="ids">[256], -1: no id</param>
    public static int MissingBytes(int[] ids) =>
        // C0, C1 and F5 to FF never occur in UTF-8.
        Enumerable.Range(0, ids.Length).Count(value => ids[value] < 0 && value is not (0xC0 or 0xC1 or >= 0xF5));

    /// <summary>Whether plain text never encodes to the token: it is a control token or the unknown token.</summary>
    public bool IsSpecial(int id) => Types[id] is TokenType.Control or TokenType.Unknown;

    /// <summary>[id], none NaN</summary>
    public float[] Scores()
    {
        const string Key = "tokenizer.ggml.scores";
        float[] scores = _file.GetFloats(Key) ?? throw Bad($"{Key} is missing or not an array of numbers");
        int bad = Array.FindIndex(scores, float.IsNaN);
        return scores.Length != Size ? throw Bad($"{Key} has {scores.Length} elements, tokenizer.ggml.tokens has {Size}")
            : bad >= 0 ? throw Bad($"{Key}[{bad}] is not a number")
            : scores;
    }

    public string[] Merges() => _file.GetStrings("tokenizer.ggml.merges")
        ?? throw Bad("tokenizer.ggml.merges is missing or not an array of strings");

    public int? SpecialId(string key)
    {
        if (!_file.Contains(key))
        {
            return null;
        }

        long? id = _file.GetInteger(key);
        return id >= 0 && id < Size
            ? (int)id
            : throw Bad($"{key} is {id?.ToString(CultureInfo.InvariantCulture) ?? "not an integer"}, but token ids are 0 to {Size - 1}");
    }

    public bool Flag(string key, bool absent) => _file.Contains(key)
        ? _file.GetBool(key) ?? throw Bad($"{key} is not a bool, nor 0 or 1")
        : absent;

    private TokenType[] ReadTypes()
    {
        const string Key = "tokenizer.ggml.token_type";
        var types = new TokenType[Texts.Length];
        if (!_file.Contains(Key))
        {
            Array.Fill(types, TokenType.Normal);
            return types;
        }

        long[] values = _file.GetIntegers(Key) ?? throw Bad($"{Key} is not an array of integers");
        if (values.Length != types.Length)
        {
            throw Bad($"{Key} has {values.Length} elements, tokenizer.ggml.tokens has {types.Length}");
        }

        for (int id = 0; id < types.Length; id++)
        {
            types[id] = values[id] is >= 1 and <= 6
                ? (TokenType)values[id]
                : throw Bad($"{Key}[{id}] is {values[id]}; types are 1 to 6");
        }

        return types;
    }
}
