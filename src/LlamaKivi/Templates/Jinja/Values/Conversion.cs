using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Converts .NET values to template values and measures their size.</summary>
/// <param name="budget">Budget of the rendering; null: none.</param>
/// <param name="provenance">Marks the strings as text from outside of the template; null: they count as the template's own.</param>
internal sealed class Conversion(Budget? budget, Provenance? provenance = null)
{
    // System.Text.Json reads 64 levels by default.
    private const int MaxDepth = 500;

    private const int ItemSize = 8;  // characters that a value counts as, for the limits of the rendering

    /// <summary>Total size: the characters of strings, and a constant for every other value.</summary>
    public long Size { get; private set; }

    /// <exception cref="ArgumentException">The value has an unsupported type or nests too deep.</exception>
    public object? From(object? value) => From(value, 0);

    private object? From(object? value, int depth)
    {
        if (depth > MaxDepth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new ArgumentException($"A template variable contains itself or nests more than {MaxDepth} deep.");
        }

        Size += value is string s ? s.Length : ItemSize;
        switch (value)
        {
            case string text:
                return Text(text);
            case JinjaList list when provenance is not null:
                return new JinjaList([.. list.Items.Select(item => From(item, depth + 1))]);
            case JinjaDict made when provenance is not null:
                var copy = new JinjaDict(budget);
                foreach ((object? key, object? item) in made.Items)
                {
                    copy[key is string name ? Text(name) : key] = From(item, depth + 1);
                }

                return copy;
            case null or bool or long or double or PyTuple or Undefined or Markup or Callable or PyNamespace:
                return value;
            case JinjaList or JinjaDict:
                Measure(value, depth);
                return value;
            case BigInteger n:
                return Arithmetic.Normal(n);
            case int or uint or short or ushort or byte or sbyte:
                return Convert.ToInt64(value, System.Globalization.CultureInfo.InvariantCulture);
            case ulong n:
                return Arithmetic.Normal(n);
            case float x:
                return (double)x;
            case decimal x:
                return (double)x;
            case JsonElement element:
                return FromJson(element, depth);
            case IEnumerable<KeyValuePair<string, object?>> items:
                var dict = new JinjaDict(budget);
                foreach ((string key, object? item) in items)
                {
                    dict[Text(key)] = From(item, depth + 1);
                }

                return dict;
            case IEnumerable<object?> items:
                return new JinjaList([.. items.Select(item => From(item, depth + 1))]);
            default:
                throw new ArgumentException($"Template variables of type {value.GetType()} are not supported; use null, bool, numbers, strings, JsonElement, lists or dictionaries.");
        }
    }

    private string Text(string text) => provenance is null ? text : provenance.Mark(text);

    // A value that is already converted.
    private void Measure(object? value, int depth)
    {
        if (depth > MaxDepth)
        {
            return;
        }

        IEnumerable<object?> items = value switch { JinjaList list => list.Items, JinjaDict made => made.Values, _ => [] };
        foreach (object? item in items)
        {
            Size += item is string text ? text.Length : ItemSize;
            Measure(item, depth + 1);
        }
    }

    private object? FromJson(JsonElement element, int depth)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                var dict = new JinjaDict(budget);
                foreach (JsonProperty property in element.EnumerateObject())
                {
                    dict[Text(property.Name)] = From(property.Value, depth + 1);
                }

                return dict;
            case JsonValueKind.Array:
                return new JinjaList([.. element.EnumerateArray().Select(item => From(item, depth + 1))]);
            case JsonValueKind.String:
                string text = JsonText(element);
                Size += text.Length;
                return Text(text);
            case JsonValueKind.Number:
                return element.TryGetInt64(out long n) ? n : LargeNumber(element);
            case JsonValueKind.True:
                return true;
            case JsonValueKind.False:
                return false;
            default:
                return null;
        }
    }

    private static object LargeNumber(JsonElement element)
    {
        string text = element.GetRawText();
        return text.AsSpan().IndexOfAny('.', 'e', 'E') < 0 && NumberParsing.TryInteger(text, 10, out object integer) ? integer : element.GetDouble();
    }

    private static string JsonText(JsonElement element)
    {
        try
        {
            return element.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            throw new ArgumentException($"A template variable contains an unpaired surrogate: {e.Message}", e);
        }
    }
}
