using System.ComponentModel.DataAnnotations;
using System.Reflection;
using System.Text.Json.Serialization.Metadata;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Adds the attributes from which schema writers read bounds to properties. A program's own attributes stay.</summary>
internal static class BoundedAttributes
{
    public static void AddTo(JsonTypeInfo type)
    {
        if (type.Kind != JsonTypeInfoKind.Object)
        {
            return;
        }

        foreach (JsonPropertyInfo property in type.Properties)
        {
            if (Of(Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType) is { } attribute
                && property.AttributeProvider?.IsDefined(attribute.GetType(), true) != true)
            {
                property.AttributeProvider = new Provider(property.AttributeProvider, attribute);
            }
        }
    }

    private static ValidationAttribute? Of(Type type) =>
        TypeBounds.IsBytes(type) ? new Base64StringAttribute()
        : type == typeof(Half) ? new RangeAttribute(-65504.0, 65504.0)
        : TypeBounds.Range(type) is not var (low, high) ? null
        : high > long.MaxValue ? new RangeAttribute((double)low, Math.BitDecrement((double)high))
        : high > uint.MaxValue ? null  // the default
        : high > int.MaxValue ? new RangeAttribute((double)low, (double)high)
        : new RangeAttribute((int)low, (int)high);

    private sealed class Provider(ICustomAttributeProvider? inner, ValidationAttribute added) : ICustomAttributeProvider
    {
        public object[] GetCustomAttributes(bool inherit) => [.. inner?.GetCustomAttributes(inherit) ?? [], added];

        public object[] GetCustomAttributes(Type attributeType, bool inherit) =>
            [.. inner?.GetCustomAttributes(attributeType, inherit) ?? [], .. attributeType.IsInstanceOfType(added) ? new object[] { added } : []];

        public bool IsDefined(Type attributeType, bool inherit) => attributeType.IsInstanceOfType(added) || inner?.IsDefined(attributeType, inherit) == true;
    }
}
