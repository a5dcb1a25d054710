using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using LlamaKivi.Sampling.Grammars.Schemas;
using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Adds the bounds of .NET types to schemas that Microsoft.Extensions.AI wrote for them.</summary>
/// <remarks>
/// Microsoft.Extensions.AI writes "integer" for <see cref="byte"/> and for <see cref="long"/>. The method of a tool has the types of its parameters.
/// <c>GetResponseAsync&lt;T&gt;</c> leaves the name of T only: a loaded type counts as T if it has this name and exactly this schema.
/// </remarks>
internal static class TypedSchemas
{
    private const string Wrapped = "data";  // GetResponseAsync<T> wraps a T that is no object

    // As GetResponseAsync<T> and ChatResponseFormat.ForJsonSchema<T> write schemas.
    private static readonly AIJsonSchemaCreateOptions Plain = new() { IncludeSchemaKeyword = true };

    /// <summary>The schema of an answer; null: any JSON.</summary>
    public static JsonElement? Of(ChatResponseFormatJson format)
    {
        if (format is not { Schema: JsonElement schema, SchemaName: { Length: > 0 } name } || schema.ValueKind != JsonValueKind.Object)
        {
            return format.Schema;
        }

        bool isWrapped = schema.TryGetProperty("properties", out JsonElement properties) && properties.ValueKind == JsonValueKind.Object
            && properties.TryGetProperty(Wrapped, out _) && properties.EnumerateObject().Count() == 1;
        foreach (bool unwrap in isWrapped ? (bool[])[true, false] : [false])
        {
            JsonElement plain = unwrap ? properties.GetProperty(Wrapped) : schema;
            if (Bounded(name, plain) is JsonElement bounded)
            {
                return unwrap ? Wrap(schema, bounded) : bounded;
            }
        }

        return schema;
    }

    /// <summary>The schema of a tool's arguments.</summary>
    public static JsonElement Of(AIFunctionDeclaration tool)
    {
        if (tool is not AIFunction { UnderlyingMethod: { } method } function)
        {
            return tool.JsonSchema;
        }

        JsonElement? plain = Written(() => AIJsonUtilities.CreateFunctionJsonSchema(method, "", "", function.JsonSerializerOptions));
        return plain is JsonElement same && JsonElement.DeepEquals(same, tool.JsonSchema)
            ? AIJsonUtilities.CreateFunctionJsonSchema(method, "", "", function.JsonSerializerOptions, StructuredOutput.SchemaOptions)
            : tool.JsonSchema;
    }

    // Null: no type has the schema, or several do and differ in their bounds.
    private static JsonElement? Bounded(string name, JsonElement plain)
    {
        JsonElement? bounded = null;
        foreach (Type type in Types(name))
        {
            if (Written(() => AIJsonUtilities.CreateJsonSchema(type, inferenceOptions: Plain)) is not JsonElement written || !JsonElement.DeepEquals(written, plain))
            {
                continue;
            }

            JsonElement own = StructuredOutput.Schema(type);
            if (bounded is JsonElement other && !JsonElement.DeepEquals(own, other))
            {
                return null;
            }

            bounded = own;
        }

        return bounded;
    }

    private static JsonElement Wrap(JsonElement schema, JsonElement value)
    {
        JsonObject wrapped = JsonObject.Create(schema)!.DeepClone().AsObject();
        wrapped["properties"]![Wrapped] = JsonNode.Parse(value.GetRawText());
        return JsonElement.Parse(wrapped.ToJsonString());
    }

    // Types that a program defines, numbers, and arrays of these.
    private static IEnumerable<Type> Types(string name)
    {
        IEnumerable<Type> types = TypeBounds.Types
            .Concat(AppDomain.CurrentDomain.GetAssemblies().Where(assembly => !assembly.IsDynamic && !IsFramework(assembly)).SelectMany(Defined))
            .Where(type => Matches(type.Name, name));
        foreach (Type type in types)
        {
            if (type.Name.Length == name.Length)
            {
                yield return type;
            }
            else if (RuntimeFeature.IsDynamicCodeSupported)
            {
                yield return type.MakeArrayType();
            }
        }
    }

    private static bool IsFramework(Assembly assembly) =>
        assembly.GetName().Name is not { } name || name.StartsWith("System.", StringComparison.Ordinal) || name.StartsWith("Microsoft.", StringComparison.Ordinal);

    [UnconditionalSuppressMessage("Trimming", "IL2026", Justification = "A type that trimming removed is not found; its schema then has the default bounds of JSON.")]
    private static IEnumerable<Type> Defined(Assembly assembly)
    {
        Type?[] types;
        try
        {
            types = assembly.GetTypes();
        }
        catch (ReflectionTypeLoadException e)
        {
            types = e.Types;
        }

        return types.OfType<Type>().Where(type => !type.IsGenericTypeDefinition && !type.IsByRefLike);
    }

    // Characters that a schema's name cannot have are underscores in it, as are the brackets of an array.
    private static bool Matches(string type, string name)
    {
        if (name.Length != type.Length && (name.Length != type.Length + 2 || !name.EndsWith("__", StringComparison.Ordinal)))
        {
            return false;
        }

        for (int i = 0; i < type.Length; i++)
        {
            if (name[i] != (char.IsAsciiLetterOrDigit(type[i]) ? type[i] : '_'))
            {
                return false;
            }
        }

        return true;
    }

    // Another type of the same name may have no schema.
    private static JsonElement? Written(Func<JsonElement> schema)
    {
        try
        {
            return schema();
        }
        catch (Exception e) when (e is NotSupportedException or InvalidOperationException or ArgumentException or JsonException)
        {
            return null;
        }
    }
}
