using System.Collections;
using System.ComponentModel;
using System.Diagnostics.CodeAnalysis;
using System.Reflection;
using System.Text;
using System.Text.Json.Serialization;

namespace LlamaKivi.Common;

/// <summary>Text of parameter records.</summary>
internal static class RecordText
{
    /// <summary>Appends the properties of <typeparamref name="T"/> as <c>Name = value</c>, in the order of JSON.</summary>
    /// <remarks>A compiler-generated PrintMembers would also list the section properties of configuration, which always read as null, and the obsolete flags.</remarks>
    public static bool Append<[DynamicallyAccessedMembers(DynamicallyAccessedMemberTypes.PublicProperties)] T>(StringBuilder builder, T record)
    {
        IEnumerable<string> members = typeof(T).GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => property.GetCustomAttribute<EditorBrowsableAttribute>()?.State != EditorBrowsableState.Never)
            .OrderBy(property => property.GetCustomAttribute<JsonPropertyOrderAttribute>()?.Order ?? 0)
            .Select(property => $"{property.Name} = {Text(property.GetValue(record))}");
        int before = builder.Length;
        builder.AppendJoin(", ", members);
        return builder.Length > before;
    }

    private static string? Text(object? value) =>
        value is IEnumerable items and not string ? $"[{string.Join(", ", items.Cast<object?>())}]" : value?.ToString();
}
