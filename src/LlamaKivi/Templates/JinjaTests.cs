namespace LlamaKivi.Templates;

/// <summary>What stands behind "is".</summary>
internal sealed class JinjaTests(JinjaValues values)
{
    public bool Apply(string name, object? value, object?[] args)
    {
        values.Budget.Run(args.Length);
        object? Argument() => args.Length > 0 ? args[0] : throw new TemplateException($"The test '{name}' needs an argument.");
        return name switch
        {
            "defined" => value is not Undefined,
            "undefined" => value is Undefined,
            "none" => value is null,
            "string" => value is string,
            "number" => value is long or double or bool,
            "integer" => value is long,
            "float" => value is double,
            "boolean" => value is bool,
            "true" => value is true,
            "false" => value is false,
            "mapping" => value is JinjaDict,
            "sequence" => value is JinjaList or string or JinjaDict,
            "iterable" => value is JinjaList or string or JinjaDict or Undefined,
            "callable" => value is Callable,
            "odd" => JinjaValues.Integer(value) % 2 != 0,
            "even" => JinjaValues.Integer(value) % 2 == 0,
            "divisibleby" => JinjaValues.Integer(Argument()) is var n && n != 0 && (n == -1 || JinjaValues.Integer(value) % n == 0),
            "equalto" or "eq" or "==" or "sameas" => values.AreEqual(value, Argument()),
            "ne" or "!=" => !values.AreEqual(value, Argument()),
            "lt" or "<" or "lessthan" => values.Compare(value, Argument()) < 0,
            "gt" or ">" or "greaterthan" => values.Compare(value, Argument()) > 0,
            "le" or "<=" => values.Compare(value, Argument()) <= 0,
            "ge" or ">=" => values.Compare(value, Argument()) >= 0,
            "in" => IsIn(value, Argument()),
            "upper" => value is string text && Read(text).Any(char.IsUpper) && !text.Any(char.IsLower),
            "lower" => value is string text && Read(text).Any(char.IsLower) && !text.Any(char.IsUpper),
            _ => throw new TemplateException($"The test '{name}' is not known."),
        };
    }

    public bool IsIn(object? item, object? container)
    {
        switch (container)
        {
            case string text:
                return item is string part ? JinjaText.IndexOf(Read(text), Read(part)) >= 0
                    : throw new TemplateException($"A {JinjaValues.TypeName(item)} cannot be in a text.");
            case JinjaDict dict:
                return item is string key && dict.ContainsKey(Read(key));
            case JinjaList list:
                return list.Items.Exists(other => values.AreEqual(item, other));
            case Undefined:
                return false;
            default:
                throw new TemplateException($"A {JinjaValues.TypeName(container)} contains nothing.");
        }
    }

    private string Read(string text)
    {
        values.Budget.Run(text.Length);
        return text;
    }
}
