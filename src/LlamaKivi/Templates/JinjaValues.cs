using LlamaKivi.Templates.Jinja;

namespace LlamaKivi.Templates;

/// <summary>Values of .NET as templates see them, for code outside of a rendering.</summary>
internal static class JinjaValues
{
    /// <summary>What a template sees of a .NET value.</summary>
    /// <exception cref="ArgumentException">The value is of a type that a template cannot use, or nests too deep.</exception>
    public static object? From(object? value) => new Conversion(null).From(value);

    /// <summary>A value as JSON, as the filter tojson writes it.</summary>
    public static string JsonOf(object? value) => new JsonWriter(new Budget(CancellationToken.None)).Write(From(value));
}
