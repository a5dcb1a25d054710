using LlamaKivi.Exceptions;

namespace LlamaKivi.Templates;

/// <summary>Finds the chat templates of a model's file.</summary>
internal static class ModelTemplate
{
    private const string Key = "tokenizer.chat_template";

    /// <summary>Returns a Jinja chat template of the file.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="name">Name of the template; null: the default one.</param>
    /// <param name="strict">True: the template must exist. False: the default template is used if the named one is missing.</param>
    /// <returns>The source; null: not <paramref name="strict"/>, and the file has no template.</returns>
    /// <exception cref="TemplateNotFoundException">The file has no template, or no template with the name.</exception>
    public static string? Find(LLamaWeights weights, string? name, bool strict)
    {
        string? named = name is null ? null : weights.Model.Gguf.GetString($"{Key}.{name}");
        return named
            ?? (name is null || !strict ? weights.Model.Gguf.GetString(Key) : null)
            ?? (strict ? throw new TemplateNotFoundException(name ?? TemplateNotFoundException.Default, Names(weights)) : null);
    }

    /// <summary>Names of the file's templates, without the default one.</summary>
    public static string[] Names(LLamaWeights weights) =>
        [.. weights.Model.Gguf.Entries.Select(entry => entry.Key).Where(key => key.StartsWith(Key + ".", StringComparison.Ordinal)).Select(key => key[(Key.Length + 1)..])];
}
