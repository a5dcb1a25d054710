namespace LlamaKivi.Templates.Jinja;

/// <summary>Filters that return strings.</summary>
internal static class TextFilters
{
    public static IEnumerable<Operation> All =>
    [
        new("upper", "", (r, value, _) => Map(r, value, CaseMapping.Upper)),
        new("lower", "", (r, value, _) => Map(r, value, CaseMapping.Lower)),
        new("capitalize", "", (r, value, _) => Map(r, value, CaseMapping.Capitalize)),
        new("title", "", (r, value, _) => Title(r.Budget, r.Str(value))),
        new("trim", "chars=None", (r, value, a) => Map(r, value, text => PyText.Strip(text, a[0] is null ? null : r.Budget.MeantOrStandIns(Text(a[0], "chars")), true, true).ToString())),
        new("string", "", (r, value, _) => value is Markup ? value : r.Str(value)),
        new("center", "width=80", (r, value, a) => Map(r, value, text => StrMethods.Justified(text, Arithmetic.Clamped(a[0], "The width"), " ", StrMethods.Alignment.Center))),
        new("replace", "old new count=None", Replace),
        new("indent", "width=4 first=False blank=False", Indent),
        new("truncate", "length=255 killwords=False end='...' leeway=None", Truncate),
        new("wordwrap", "width=79 break_long_words=True wrapstring=None break_on_hyphens=True", WordWrap),
        new("wordcount", "", (r, value, _) => WordCount(r.Budget, r.Str(value))),
        new("format", Format),
        new("join", "d='' attribute=None", Join),
        new("tojson", "ensure_ascii=False indent=None separators=None sort_keys=False", ToJson),
        new("pprint", "", (r, value, _) => PrettyPrint.Format(r.Budget, value)),
        new("filesizeformat", "binary=False", FileSize),
    ];

    /// <summary>Transforms the text of a value. A string marked as escaped stays so.</summary>
    public static object Map(Rendering rendering, object? value, Func<string, string> map)
    {
        string text = map(rendering.Str(value));
        return value is Markup ? new Markup(text) : text;
    }

    public static string Text(object? value, string what) => Types.Str(value) ?? throw Types.Error(value, $"'{what}' must be a string, not a {Types.Name(value)}.");

    private static string Title(Budget budget, string text)
    {
        string meant = budget.Meant(text);
        var result = new TextBuilder();
        int start = 0;
        for (int i = 0; i <= text.Length; i++)
        {
            bool separates = i < text.Length && (PyText.IsSpace(text[i]) || meant[i] is '-' or '(' or '{' or '[' or '<');
            if (i < text.Length && !separates)
            {
                continue;
            }

            result.Append(Capital(text[start..i]));
            result.Append(separates ? text[i..(i + 1)] : "");
            start = i + 1;
        }

        return result.ToString();

        // The first character in upper case, not in title case.
        static string Capital(string word) => word.Length == 0 ? word
            : PyText.Characters(word).First() is var first ? CaseMapping.Upper(first) + CaseMapping.Lower(word[first.Length..]) : word;
    }

    private static object Replace(Rendering rendering, object? value, object?[] a)
    {
        long count = a[2] is null ? -1 : Arithmetic.Clamped(a[2], "The count of replace");
        if (!rendering.Autoescape)
        {
            return TextSearch.Replace(rendering.Budget, rendering.Str(value), rendering.Str(a[0]), rendering.Str(a[1]), count);
        }

        bool escapes = value is Markup || a[0] is Markup || a[1] is Markup;
        string Part(object? part) => escapes && part is not Markup ? HtmlText.Escape(rendering.Budget, rendering.Str(part)) : rendering.Str(part);
        string text = TextSearch.Replace(rendering.Budget, Part(value), value is Markup || a[0] is Markup ? Part(a[0]) : rendering.Str(a[0]), Part(a[1]), count);
        return escapes ? new Markup(text) : text;
    }

    private static object? Indent(Rendering rendering, object? value, object?[] a)
    {
        string text = Text(value, "The value of indent");
        string indent = Types.Str(a[0]) ?? Spaces(Arithmetic.Clamped(a[0], "The width of indent"));
        List<string> lines = PyText.Lines(text + "\n", keepEnds: false);
        bool blank = Types.IsTrue(a[2]);
        var result = new TextBuilder();
        for (int i = 0; i < lines.Count; i++)
        {
            bool indented = i == 0 ? Types.IsTrue(a[1]) : blank || lines[i].Length > 0;
            result.Append(i > 0 ? "\n" : "").Append(indented ? indent : "").Append(lines[i]);
        }

        return value is Markup ? new Markup(result.ToString()) : result.ToString();
    }

    private static string Spaces(long count)
    {
        Budget.Room(count);
        return new string(' ', (int)Math.Max(count, 0));
    }

    private static object? Truncate(Rendering rendering, object? value, object?[] a)
    {
        long length = Arithmetic.Clamped(a[0], "The length of truncate");
        string end = Text(a[2], "end");
        long leeway = a[3] is null ? 5 : Arithmetic.Clamped(a[3], "The leeway of truncate");
        int endLength = PyText.Length(end);
        if (length < endLength || leeway < 0)
        {
            throw new TemplateException(leeway < 0 ? "The leeway of truncate must not be negative." : $"The length of truncate is less than the {endLength} characters of its end.");
        }

        long count = Iteration.Length(value) ?? throw new TemplateException($"truncate takes a string, not a {Types.Name(value)}.");
        if (count <= Math.Min(length, int.MaxValue) + leeway)
        {
            return value;  // any value with a length, as in jinja2
        }

        string text = Text(value, "The value of truncate");

        string cut = PyText.Part(text, 0, (int)Math.Min(count, length - endLength));
        if (!Types.IsTrue(a[1]))
        {
            int blank = cut.LastIndexOf(' ');
            cut = blank < 0 ? cut : cut[..blank];
        }

        return value is Markup ? new Markup(cut + end) : cut + end;
    }

    private static string WordWrap(Rendering rendering, object? value, object?[] a)
    {
        string text = Text(value, "The value of wordwrap");
        string separator = a[2] is null ? "\n" : Text(a[2], "wrapstring");
        long width = Arithmetic.Clamped(a[0], "The width of wordwrap");
        return string.Join(separator, PyText.Lines(text, keepEnds: false)
            .Select(line => string.Join(separator, WordWrapping.Wrap(rendering.Budget, line, width, Types.IsTrue(a[1]), Types.IsTrue(a[3])))));
    }

    private static long WordCount(Budget budget, string text)
    {
        budget.Run(8L * text.Length);
        long words = 0;
        bool inside = false;
        foreach (int code in PyText.CodePoints(text))
        {
            bool part = PyText.IsWordPart(code);
            words += part && !inside ? 1 : 0;
            inside = part;
        }

        return words;
    }

    private static object Format(Rendering rendering, object? value, CallArguments arguments)
    {
        if (arguments.Positional.Length > 0 && arguments.Named.Length > 0)
        {
            throw new TemplateException("format takes values by position or by name, not both.");
        }

        object? values = new PyTuple(arguments.Positional);
        if (arguments.Named.Length > 0)
        {
            var named = new JinjaDict(rendering.Budget);
            foreach ((string name, object? item) in arguments.Named)
            {
                named[name] = item;
            }

            values = named;
        }

        return value is Markup markup
            ? new Markup(PercentFormat.Apply(rendering, markup.Text, HtmlText.EscapedValues(rendering, values)))
            : PercentFormat.Apply(rendering, rendering.Str(value), values);
    }

    private static object Join(Rendering rendering, object? value, object?[] a)
    {
        IEnumerable<object?> items = Iteration.Of(rendering.Budget, value);
        items = a[1] is null ? items : items.Select(Members.Getter(rendering, a[1]));
        var text = new TextBuilder();
        bool any = false;
        if (!rendering.Autoescape)
        {
            string separator = rendering.Str(a[0]);
            foreach (object? item in items)
            {
                text.Append(any ? separator : "").Append(rendering.Str(item));
                any = true;
            }

            return text.ToString();
        }

        object?[] all = [.. items];
        bool escapes = a[0] is Markup || Array.Exists(all, item => item is Markup);
        string Part(object? part) => escapes && part is not Markup ? HtmlText.Escape(rendering.Budget, rendering.Str(part)) : rendering.Str(part);
        foreach (object? item in all)
        {
            text.Append(any ? Part(a[0]) : "").Append(Part(item));
            any = true;
        }

        return escapes ? new Markup(text.ToString()) : text.ToString();
    }

    private static string ToJson(Rendering rendering, object? value, object?[] a)
    {
        string? indent = a[1] is null ? null : Types.Str(a[1]) ?? Spaces(Arithmetic.Clamped(a[1], "The indent of tojson"));
        (string items, string keys) = (indent is null ? ", " : ",", ": ");
        if (a[2] is not null)
        {
            List<object?> separators = Iteration.ToList(rendering.Budget, a[2]);
            if (separators.Count != 2)
            {
                throw new TemplateException("The separators of tojson must be two strings.");
            }

            (items, keys) = (Text(separators[0], "separators"), Text(separators[1], "separators"));
        }

        var writer = new JsonWriter(rendering.Budget)
        {
            EnsureAscii = Types.IsTrue(a[0]),
            Indent = indent,
            ItemSeparator = items,
            KeySeparator = keys,
            SortKeys = Types.IsTrue(a[3]),
        };
        return writer.Write(value);
    }

    private static string FileSize(Rendering rendering, object? value, object?[] a)
    {
        double size = NumberFilters.TryReal(value, out double number) ? number : throw Types.Error(value, $"filesizeformat takes a number, not a {Types.Name(value)}.");
        bool binary = Types.IsTrue(a[0]);
        int step = binary ? 1024 : 1000;
        if (size == 1)
        {
            return "1 Byte";
        }

        if (size < step)
        {
            return $"{rendering.Str(Arithmetic.Truncated(size))} Bytes";
        }

        string[] units = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
        int at = 0;
        double unit = (double)step * step;
        while (size >= unit && at < units.Length - 1)
        {
            unit *= step;
            at++;
        }

        string prefix = binary ? units[at].ToUpperInvariant() + "i" : units[at];
        return $"{(double.IsFinite(size) ? NumberText.Fixed(step * size / unit, 1) : rendering.Str(size))} {prefix}B";
    }
}
