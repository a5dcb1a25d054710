using System.Numerics;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Makes a template's values of .NET's, and measures them.</summary>
/// <param name="budget">Of the rendering; null: of none.</param>
/// <param name="provenance">Marks the texts as outside ones; null: they are the template's own.</param>
internal sealed class Conversion(Budget? budget, Provenance? provenance = null)
{
    // JSON has 64 unless its reader is told otherwise.
    private const int MaxDepth = 500;

    private const int ItemSize = 8;  // of characters, for the allowance of the rendering

    /// <summary>Characters of the texts, and a constant for each other value.</summary>
    public long Size { get; private set; }

    /// <exception cref="ArgumentException">The value is of a type that a template cannot use, or nests too deep.</exception>
    public object? From(object? value) => From(value, 0);

    private object? From(object? value, int depth)
    {
        if (depth > MaxDepth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new ArgumentException($"A template cannot use a value that contains itself, or nests more than {MaxDepth} deep.");
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
                throw new ArgumentException($"A template cannot use a {value.GetType()}.");
        }
    }

    private string Text(string text) => provenance is null ? text : provenance.Mark(text);

    // Of a value that was made before.
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
            throw new ArgumentException($"A template cannot use a text with half a character: {e.Message}", e);
        }
    }
}
