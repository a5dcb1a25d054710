using LlamaKivi.Exceptions;

namespace LlamaKivi.Templates;

/// <summary>Finds the chat templates of a model's file.</summary>
internal static class ModelTemplate
{
    private const string Key = "tokenizer.chat_template";

    /// <summary>A chat template of the file, in the Jinja language.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="name">Null: the default one.</param>
    /// <param name="strict">True: the template must be there. False: where there is none of the name, the default.</param>
    /// <returns>Null if there is none, and that is allowed.</returns>
    /// <exception cref="TemplateNotFoundException">The file has no template, or none of the name.</exception>
    public static string? Find(LLamaWeights weights, string? name, bool strict)
    {
        string? named = name is null ? null : weights.Model.Gguf.GetString($"{Key}.{name}");
        return named
            ?? (name is null || !strict ? weights.Model.Gguf.GetString(Key) : null)
            ?? (strict ? throw new TemplateNotFoundException(name ?? TemplateNotFoundException.Default, Names(weights)) : null);
    }

    /// <summary>Names of the file's templates but for the default one.</summary>
    public static string[] Names(LLamaWeights weights) =>
        [.. weights.Model.Gguf.Entries.Select(entry => entry.Key).Where(key => key.StartsWith(Key + ".", StringComparison.Ordinal)).Select(key => key[(Key.Length + 1)..])];
}
