using System.Globalization;

namespace LlamaKivi.Templates;

/// <summary>Methods of texts, lists and dictionaries, as Python has them.</summary>
internal sealed class JinjaMethods(JinjaValues values)
{
    public object? Call(object? target, string name, object?[] args, IReadOnlyDictionary<string, object?> named)
    {
        values.Budget.Read(target, args, named);
        string Text(int index) => index < args.Length ? values.Text(args[index]) : throw new TemplateException($"{name}() needs more arguments.");
        string? Set() => args.Length > 0 && args[0] is string set ? set : null;
        switch (target, name)
        {
            case (string s, "strip"):
                return JinjaText.Trim(s, Set(), start: true, end: true);
            case (string s, "lstrip"):
                return JinjaText.Trim(s, Set(), start: true, end: false);
            case (string s, "rstrip"):
                return JinjaText.Trim(s, Set(), start: false, end: true);
            case (string s, "upper"):
                return s.ToUpperInvariant();
            case (string s, "lower"):
                return s.ToLowerInvariant();
            case (string s, "title"):
                return CultureInfo.InvariantCulture.TextInfo.ToTitleCase(s.ToLowerInvariant());
            case (string s, "capitalize"):
                return JinjaFilters.Capitalized(s);
            case (string s, "startswith"):
                return Any(args, part => s.StartsWith(part, StringComparison.Ordinal));
            case (string s, "endswith"):
                return Any(args, part => s.EndsWith(part, StringComparison.Ordinal));
            case (string s, "replace"):
                return JinjaText.Replace(s, Text(0), Text(1), args.Length > 2 && JinjaValues.Integer(args[2]) is >= 0 and var most ? most : long.MaxValue);
            case (string s, "split"):
                return new JinjaList(Split(s, args.Length > 0 ? args[0] : named.GetValueOrDefault("sep"), args.Length > 1 ? args[1] : named.GetValueOrDefault("maxsplit", -1L)));
            case (string s, "rsplit"):
                return new JinjaList(JinjaText.SplitFromEnd(values.Budget, s, Text(0), args.Length > 1 ? JinjaValues.Integer(args[1]) : -1));
            case (string s, "splitlines"):
                return new JinjaList(JinjaText.Split(values.Budget, s.TrimEnd('\n').ReplaceLineEndings("\n"), "\n", -1));
            case (string s, "join"):
                return Joined(s, values.Iterate(args.FirstOrDefault()));
            case (string s, "find"):
                return (long)JinjaText.IndexOf(s, Text(0));
            case (string s, "count"):
                return Text(0) is { Length: > 0 } part ? JinjaText.Places(s, part).Count() : s.Length + 1L;
            case (string s, "isdigit"):
                return s.Length > 0 && s.All(char.IsDigit);
            case (string s, "isalpha"):
                return s.Length > 0 && s.All(char.IsLetter);
            case (string s, "isspace"):
                return s.Length > 0 && s.All(char.IsWhiteSpace);
            case (string s, "removeprefix"):
                return s.StartsWith(Text(0), StringComparison.Ordinal) ? s[Text(0).Length..] : s;
            case (string s, "removesuffix"):
                return s.EndsWith(Text(0), StringComparison.Ordinal) ? s[..^Text(0).Length] : s;
            case (JinjaDict dict, "items"):
                values.Budget.Step(dict.Count);
                return new JinjaList(JinjaFilters.Pairs(dict));
            case (JinjaDict dict, "keys"):
                values.Budget.Step(dict.Count);
                return new JinjaList(dict.Keys);
            case (JinjaDict dict, "values"):
                values.Budget.Step(dict.Count);
                return new JinjaList(dict.Items.Select(item => item.Value));
            case (JinjaDict dict, "get"):
                return dict.TryGetValue(Text(0), out object? value) ? value : args.Length > 1 ? args[1] : null;
            case (JinjaDict dict, "update"):
                // A copy: a dictionary may be given to itself.
                foreach ((string key, object? item) in ((args.FirstOrDefault() as JinjaDict)?.Items.Concat(named) ?? named).ToList())
                {
                    values.Budget.Step();
                    dict[key] = item;
                }

                return null;
            case (JinjaList list, "append"):
                list.Items.Add(args.FirstOrDefault());
                return null;
            case (JinjaList list, "extend"):
                Extend(list, args.FirstOrDefault());
                return null;
            case (JinjaList list, "insert"):
                list.Items.Insert((int)Math.Clamp(JinjaValues.Integer(args.FirstOrDefault()), 0, list.Items.Count), args.ElementAtOrDefault(1));
                return null;
            case (JinjaList list, "pop"):
                return Pop(list, args);
            case (JinjaList list, "index"):
                return (long)list.Items.FindIndex(item => values.AreEqual(item, args.FirstOrDefault()));
            case (JinjaList list, "count"):
                return (long)list.Items.Count(item => values.AreEqual(item, args.FirstOrDefault()));
            default:
                throw new TemplateException($"A {JinjaValues.TypeName(target)} has no method {name}().");
        }
    }

    private bool Any(object?[] args, Predicate<string> matches) =>
        (args.FirstOrDefault() is JinjaList list ? list.Items : [.. args.Take(1)]).Exists(part => matches(values.Text(part)));

    // The copy comes first: a list may be given to itself.
    private void Extend(JinjaList list, object? items) => list.Items.AddRange([.. values.Iterate(items)]);

    private string Joined(string separator, IEnumerable<object?> items)
    {
        var text = new JinjaTextBuilder();
        bool any = false;
        foreach (object? item in items)
        {
            text.Append(any ? separator : "").Append(values.Text(item));
            any = true;
        }

        return text.ToString();
    }

    private IReadOnlyCollection<string> Split(string text, object? separator, object? most)
    {
        long limit = JinjaValues.Integer(most);
        if (separator is string { Length: > 0 } s)
        {
            return JinjaText.Split(values.Budget, text, s, limit);
        }

        values.Budget.Step(JinjaText.Words(text));
        int parts = limit is < 0 or >= int.MaxValue ? int.MaxValue : (int)limit + 1;
        return text.Split((char[]?)null, parts, StringSplitOptions.RemoveEmptyEntries);
    }

    private static object? Pop(JinjaList list, object?[] args)
    {
        long at = args.Length > 0 ? JinjaValues.Integer(args[0]) : -1;
        at += at < 0 ? list.Items.Count : 0;
        if (at < 0 || at >= list.Items.Count)
        {
            throw new TemplateException("pop() from a list without that item.");
        }

        object? item = list.Items[(int)at];
        list.Items.RemoveAt((int)at);
        return item;
    }
}
