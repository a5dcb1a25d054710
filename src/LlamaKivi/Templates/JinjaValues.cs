using LlamaKivi.Templates.Jinja;

namespace LlamaKivi.Templates;

/// <summary>Converts .NET values to template values, for code outside of a rendering.</summary>
internal static class JinjaValues
{
    /// <summary>Converts a .NET value to a template value.</summary>
    /// <exception cref="ArgumentException">The value has an unsupported type or nests too deep.</exception>
    public static object? From(object? value) => new Conversion(null).From(value);

    /// <summary>Writes a value as JSON, like the filter tojson.</summary>
    public static string JsonOf(object? value) => new JsonWriter(new Budget(CancellationToken.None)).Write(From(value));
}
