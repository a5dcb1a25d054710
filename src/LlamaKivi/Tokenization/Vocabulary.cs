using LlamaKivi.Native;

namespace LlamaKivi.Tokenization;

/// <summary>The tokens of a GGUF file and their types, checked.</summary>
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
        Ids = new Dictionary<string, int>(Texts.Length, StringComparer.Ordinal);
        for (int id = 0; id < Texts.Length; id++)
        {
            Ids[Texts[id]] = id;
        }
    }

    /// <summary>[id]</summary>
    public string[] Texts { get; }

    /// <summary>[id]</summary>
    public TokenType[] Types { get; }

    public Dictionary<string, int> Ids { get; }

    public string? Pre => _file.GetString("tokenizer.ggml.pre");

    public static ModelLoadException Bad(string problem) =>
        new(lk_status.LK_BAD_FILE, $"The file's tokenizer cannot be used: {problem}.");

    public string[] Merges() => _file.GetStrings("tokenizer.ggml.merges")
        ?? throw Bad("tokenizer.ggml.merges is missing or not an array of strings");

    public int? SpecialId(string key)
    {
        if (!_file.Contains(key))
        {
            return null;
        }

        long? id = _file.GetInteger(key);
        return id >= 0 && id < Texts.Length
            ? (int)id
            : throw Bad($"{key} is {id?.ToString() ?? "not an integer"}, but token ids are 0 to {Texts.Length - 1}");
    }

    public bool Flag(string key, bool absent) => _file.Contains(key)
        ? _file.GetBool(key) ?? throw Bad($"{key} is not a bool")
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

        int[] values = _file.GetArray<int>(Key) ?? throw Bad($"{Key} is not an array of i32");
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
