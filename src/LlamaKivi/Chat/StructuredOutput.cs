using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars.Schemas;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>JSON schemas and grammars of .NET types whose texts deserialize to these types.</summary>
/// <remarks>
/// The schemas of System.Text.Json and Microsoft.Extensions.AI leave out what a type can hold: <see cref="byte"/> and <see cref="long"/> are both "integer",
/// <c>byte[]</c> is any string, the keys of a dictionary are any names. This class adds bounds, enumerated values, Base64 and the form of keys. The chat client
/// does so by itself for a plain <c>GetResponseAsync&lt;T&gt;</c> whose T is a number, a type of the program, or an array of these, and for tools made of methods.
/// </remarks>
public static class StructuredOutput
{
    /// <summary>Options for <see cref="AIJsonUtilities.CreateJsonSchema"/> that add what types can hold.</summary>
    public static AIJsonSchemaCreateOptions SchemaOptions { get; } = new() { TransformSchemaNode = TypeBounds.AddTo };

    /// <summary>The schema of a type.</summary>
    /// <param name="type">The type.</param>
    /// <param name="serializerOptions">Options that its texts are deserialized with; null: those of Microsoft.Extensions.AI.</param>
    public static JsonElement Schema(Type type, JsonSerializerOptions? serializerOptions = null)
    {
        ArgumentNullException.ThrowIfNull(type);
        return AIJsonUtilities.CreateJsonSchema(type, serializerOptions: serializerOptions, inferenceOptions: SchemaOptions);
    }

    /// <summary>The response format for <see cref="ChatOptions.ResponseFormat"/> of answers that deserialize to a type.</summary>
    /// <typeparam name="T">The type.</typeparam>
    /// <param name="serializerOptions">Options that the answer is deserialized with; null: those of Microsoft.Extensions.AI.</param>
    public static ChatResponseFormatJson ResponseFormat<T>(JsonSerializerOptions? serializerOptions = null) =>
        ChatResponseFormat.ForJsonSchema(Schema(typeof(T), serializerOptions));

    /// <summary>The grammar of texts that deserialize to a type.</summary>
    /// <param name="type">The type.</param>
    /// <param name="serializerOptions">Options that the texts are deserialized with; null: those of Microsoft.Extensions.AI.</param>
    /// <exception cref="GrammarException">The type has what a grammar cannot hold a text to; the message says where.</exception>
    public static Grammar GrammarOf(Type type, JsonSerializerOptions? serializerOptions = null) => Grammar.FromJsonSchema(Schema(type, serializerOptions));

    /// <summary>
    /// Options for the <c>serializerOptions</c> of <c>GetResponseAsync&lt;T&gt;</c>: the schema that it makes of T has the bounds of T's properties, as if they
    /// had the attributes <c>[Range]</c> and <c>[Base64String]</c>. Items of lists, and T itself, have no attributes: <see cref="ResponseFormat{T}"/> bounds those too.
    /// </summary>
    /// <param name="serializerOptions">Options to start from, which name how types are read.</param>
    public static JsonSerializerOptions WithBounds(JsonSerializerOptions serializerOptions)
    {
        ArgumentNullException.ThrowIfNull(serializerOptions);
        IJsonTypeInfoResolver resolver = serializerOptions.TypeInfoResolver
            ?? throw new ArgumentException($"The options have no {nameof(JsonSerializerOptions.TypeInfoResolver)}: nothing says how types are read.", nameof(serializerOptions));
        return new JsonSerializerOptions(serializerOptions) { TypeInfoResolver = resolver.WithAddedModifier(BoundedAttributes.AddTo) };
    }
}
