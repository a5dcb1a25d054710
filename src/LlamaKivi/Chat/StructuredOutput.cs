using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars.Schemas;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>JSON schemas and grammars whose texts deserialize to a .NET type.</summary>
/// <remarks>
/// The schemas of System.Text.Json and Microsoft.Extensions.AI leave out what a type can hold: <see cref="byte"/> and <see cref="long"/> are both "integer",
/// <c>byte[]</c> is any string, the keys of a dictionary are any names. This class adds bounds, enumerated values, Base64 and the form of keys. The chat client
/// does so by itself for a plain <c>GetResponseAsync&lt;T&gt;</c> whose T is a number, a type of the program, or an array of these, and for tools made of methods.
/// </remarks>
public static class StructuredOutput
{
    /// <summary>Options for <see cref="AIJsonUtilities.CreateJsonSchema"/> that add the bounds of types.</summary>
    public static AIJsonSchemaCreateOptions SchemaOptions { get; } = new() { TransformSchemaNode = TypeBounds.AddTo };

    /// <summary>Creates the schema of a type.</summary>
    /// <param name="type">The type.</param>
    /// <param name="serializerOptions">Options for deserializing the text; null: those of Microsoft.Extensions.AI.</param>
    public static JsonElement Schema(Type type, JsonSerializerOptions? serializerOptions = null)
    {
        ArgumentNullException.ThrowIfNull(type);
        return AIJsonUtilities.CreateJsonSchema(type, serializerOptions: serializerOptions, inferenceOptions: SchemaOptions);
    }

    /// <summary>Creates a value for <see cref="ChatOptions.ResponseFormat"/> whose answers deserialize to a type.</summary>
    /// <typeparam name="T">The type.</typeparam>
    /// <param name="serializerOptions">Options for deserializing the answer; null: those of Microsoft.Extensions.AI.</param>
    public static ChatResponseFormatJson ResponseFormat<T>(JsonSerializerOptions? serializerOptions = null) =>
        ChatResponseFormat.ForJsonSchema(Schema(typeof(T), serializerOptions));

    /// <summary>Creates a grammar whose texts deserialize to a type.</summary>
    /// <param name="type">The type.</param>
    /// <param name="serializerOptions">Options for deserializing the text; null: those of Microsoft.Extensions.AI.</param>
    /// <exception cref="GrammarException">A grammar cannot enforce the schema of the type; the message names the place.</exception>
    public static Grammar GrammarOf(Type type, JsonSerializerOptions? serializerOptions = null) => Grammar.FromJsonSchema(Schema(type, serializerOptions));

    /// <summary>
    /// Options for the <c>serializerOptions</c> of <c>GetResponseAsync&lt;T&gt;</c>: its schema of T then has the bounds of T's properties, as if they
    /// had the attributes <c>[Range]</c> and <c>[Base64String]</c>. List items and T itself have no attributes; <see cref="ResponseFormat{T}"/> bounds those too.
    /// </summary>
    /// <param name="serializerOptions">Options to extend. They must have a <see cref="JsonSerializerOptions.TypeInfoResolver"/>.</param>
    public static JsonSerializerOptions WithBounds(JsonSerializerOptions serializerOptions)
    {
        ArgumentNullException.ThrowIfNull(serializerOptions);
        IJsonTypeInfoResolver resolver = serializerOptions.TypeInfoResolver
            ?? throw new ArgumentException($"The options have no {nameof(JsonSerializerOptions.TypeInfoResolver)}; set one, such as {nameof(DefaultJsonTypeInfoResolver)}.", nameof(serializerOptions));
        return new JsonSerializerOptions(serializerOptions) { TypeInfoResolver = resolver.WithAddedModifier(BoundedAttributes.AddTo) };
    }
}
