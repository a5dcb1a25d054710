using System.Globalization;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's str.format(): a string with fields in braces.</summary>
internal sealed class BraceFormat(Rendering rendering, CallArguments arguments)
{
    private const int MaxNesting = 2;

    private int _next;
    private bool _numbered;

    public string Apply(string format) => rendering.Budget.Made(Apply(format, 0));

    private string Apply(string format, int level)
    {
        if (level >= MaxNesting)
        {
            throw new TemplateException("The fields of the format nest too deep.");
        }

        rendering.Budget.Run(format.Length);
        var text = new TextBuilder();
        for (int at = 0; at < format.Length;)
        {
            char c = format[at++];
            if (c is '{' or '}' && at < format.Length && format[at] == c)
            {
                text.Append(c);
                at++;
            }
            else if (c == '}')
            {
                throw new TemplateException("A '}' in the format has no matching '{'.");
            }
            else if (c == '{')
            {
                int end = End(format, at);
                text.Append(Field(format[at..end], level));
                at = end + 1;
            }
            else
            {
                text.Append(c);
            }
        }

        return text.ToString();
    }

    private static int End(string format, int at)
    {
        int depth = 1;
        for (; at < format.Length; at++)
        {
            depth += format[at] == '{' ? 1 : format[at] == '}' ? -1 : 0;
            if (depth == 0)
            {
                return at;
            }
        }

        throw new TemplateException("A '{' in the format has no matching '}'.");
    }

    private string Field(string field, int level)
    {
        int bracket = 0;
        int end = 0;
        for (; end < field.Length && (bracket > 0 || field[end] is not ('!' or ':')); end++)
        {
            bracket += field[end] == '[' ? 1 : field[end] == ']' ? -1 : 0;
        }

        object? value = Value(field[..end]);
        if (end < field.Length && field[end] == '!')
        {
            if (end + 1 >= field.Length || (end + 2 < field.Length && field[end + 2] != ':'))
            {
                throw new TemplateException("A field of the format lacks a conversion after '!'.");
            }

            value = field[end + 1] switch
            {
                's' => Representation.Str(rendering.Budget, value),
                'r' => Representation.Repr(rendering.Budget, value),
                'a' => Representation.AsciiOnly(rendering.Budget, value),
                char other => throw new TemplateException($"The conversion !{other} in the format is unknown; use !s, !r or !a."),
            };
            end += 2;
        }

        return FormatSpec.Apply(rendering.Budget, value, end < field.Length ? Apply(field[(end + 1)..], level + 1) : "");
    }

    private object? Value(string path)
    {
        int end = path.AsSpan().IndexOfAny('.', '[');
        string first = end < 0 ? path : path[..end];
        object? value = First(first);
        int at = end < 0 ? path.Length : end;
        while (at < path.Length)
        {
            if (path[at] == '.')
            {
                int next = path.AsSpan(at + 1).IndexOfAny('.', '[');
                next = next < 0 ? path.Length : at + 1 + next;
                value = Members.GetAttribute(rendering, value, path[(at + 1)..next]);
                at = next;
                continue;
            }

            int close = path.IndexOf(']', at);
            if (path[at] != '[' || close < 0)
            {
                throw new TemplateException($"The field '{path}' of the format is invalid.");
            }

            string key = path[(at + 1)..close];
            value = Members.GetItem(rendering, value, IsNumber(key, out long index) ? index : key);
            at = close + 1;
        }

        return value;
    }

    private object? First(string name)
    {
        long index;
        if (name.Length == 0)
        {
            index = _next++;
            if (_numbered)
            {
                throw new TemplateException("The fields of a format must be either all numbered or all unnumbered.");
            }
        }
        else if (IsNumber(name, out index))
        {
            _numbered = true;
            if (_next > 0)
            {
                throw new TemplateException("The fields of a format must be either all numbered or all unnumbered.");
            }
        }
        else
        {
            return arguments.TryGetNamed(name, out object? value) ? value : throw new TemplateException($"The value '{name}' of the format is missing.");
        }

        return index < arguments.Positional.Length ? arguments.Positional[index] : throw new TemplateException($"The format needs more than the {arguments.Positional.Length} given values.");
    }

    private static bool IsNumber(string text, out long number)
    {
        number = 0;
        return text.Length is > 0 and < 18 && text.All(char.IsAsciiDigit) && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);
    }
}
