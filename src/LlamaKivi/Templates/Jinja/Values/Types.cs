using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python types of values.</summary>
internal static class Types
{
    public static string Name(object? value) => value switch
    {
        null => "NoneType",
        Undefined => "Undefined",
        bool => "bool",
        long or BigInteger => "int",
        double => "float",
        string => "str",
        Markup => "Markup",
        PyBytes => "bytes",
        JinjaList => "list",
        PyTuple { IsGroup: true } => "_GroupTuple",
        PyTuple => "tuple",
        JinjaDict => "dict",
        PyRange => "range",
        PyView { Kind: ViewKind.Keys } => "dict_keys",
        PyView { Kind: ViewKind.Values } => "dict_values",
        PyView => "dict_items",
        PyIterator iterator => iterator.Type,
        PyNamespace => "Namespace",
        LoopContext => "LoopContext",
        Macro => "Macro",
        Cycler => "Cycler",
        Joiner => "Joiner",
        TemplateReference => "TemplateReference",
        BoundMethod => "builtin_function_or_method",
        PySlice => "slice",
        _ => "function",
    };

    /// <summary>The text of a str, plain or marked as escaped; null: not a str.</summary>
    public static string? Str(object? value) => value as string ?? (value as Markup)?.Text;

    public static bool IsInteger(object? value) => value is long or bool or BigInteger;

    public static bool IsNumber(object? value) => value is long or bool or BigInteger or double;

    public static bool IsCallable(object? value) => value is Callable or LoopContext or Joiner or Undefined;

    public static bool IsTrue(object? value) => value switch
    {
        null or Undefined => false,
        bool flag => flag,
        string text => text.Length > 0,
        long n => n != 0,
        double x => x != 0,
        BigInteger n => !n.IsZero,
        Markup markup => markup.Text.Length > 0,
        JinjaList list => list.Items.Count > 0,
        JinjaDict dict => dict.Count > 0,
        PyTuple tuple => tuple.Items.Length > 0,
        PyRange range => range.Count > 0,
        PyView view => view.Dict.Count > 0,
        PyBytes bytes => bytes.Bytes.Length > 0,
        _ => true,
    };

    public static TemplateException Error(string message) => new(message);

    /// <summary>Creates the error for an unsuitable value: for an undefined one its own message, otherwise the given one.</summary>
    public static TemplateException Error(object? value, string message) => value is Undefined undefined ? undefined.Error() : new TemplateException(message);
}
