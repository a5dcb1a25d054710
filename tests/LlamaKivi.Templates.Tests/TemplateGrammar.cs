namespace LlamaKivi.Templates.Tests;

/// <summary>Random templates: every statement, operator, filter, test, method and function of the language, over odd values.</summary>
internal sealed class TemplateGrammar(Random random)
{
    private static readonly string[] Names = ["a", "b", "l", "d", "s", "ns", "x", "m", "loop", "messages", "tools", "message", "bos_token", "missing", "caller"];

    private static readonly Dictionary<char, string[]> Values = new()
    {
        ['N'] =
        [
            "0", "1", "-1", "2", "7", "63", "64", "1000000", "2147483647", "2147483648", "4294967296", "9223372036854775807", "(-9223372036854775807 - 1)", "0.0", "-0.0", "0.5", "1.5", "true",
            "100000000000000000000000.0", "(1.0 / 3)", "(1e300 * 1e300)", "(1e300 * 1e300 - 1e300 * 1e300)", "2 ** 100", "-3 ** 70",
        ],
        ['T'] =
        [
            "''", "'a'", "'abc'", "' a  b '", "'%s'", "'%d %5.1f'", "'%-08x|%(a)s'", "'%*.*f'", "'%'", "'{0,9}'", "'{'", "'\\n'", "'\\ud800'", "'\\udc00x'", "'\\u0000'", "'😀é'", "'İıß'", "'<&>'", "'1e400'", "'nan'", "' 12 '",
            "'a.b.0'", "'%Y-%m-%d %-H %e %j'", "'%k'", "'role'", "'content'", "('a' * 1000)", "('ab ' * 5000)", "s", "bos_token", "messages[0].content", "('aab' * 200)", "('aaa' * 100 ~ 'b' ~ 'aaa' * 100)",
        ],
        ['L'] =
        [
            "[]", "[1, 'a', none]", "[3, 1, 2]", "[[1], [1, 2], 'b']", "['b', 'A', 'a']", "(1,)", "()", "range(3)", "range(10, 0, -3)", "(range(300) | list)", "l", "a", "b", "messages", "tools", "(1e300 * 1e300, 0.0)", "(range(9) | map('string'))", "d.items()", "(1, [2])", "[a, b]", "[d, d]",
        ],
        ['D'] = ["{}", "{'a': 1}", "{'b': [1, {}], 'a': none, 'role': 'user'}", "namespace(a=1)", "dict(a=2)", "d", "ns", "messages[0]", "tools[0]"],
        ['B'] = ["none", "true", "false", "missing", "x is defined"],
    };

    // Input and output kinds of filters; A is anything.
    private static readonly (string Name, char Takes, char Gives)[] Filters =
    [
        .. "trim upper lower capitalize title safe replace indent format".Split(' ').Select(name => (name, 'T', 'T')),
        .. "string escape e tojson pprint".Split(' ').Select(name => (name, 'A', 'T')),
        .. "int float abs round".Split(' ').Select(name => (name, 'N', 'N')),
        .. "length count sum".Split(' ').Select(name => (name, 'L', 'N')),
        .. "list reverse sort unique map select reject selectattr rejectattr batch slice groupby".Split(' ').Select(name => (name, 'L', 'L')),
        .. "first last min max".Split(' ').Select(name => (name, 'L', 'A')),
        ("wordcount", 'T', 'N'), ("list", 'T', 'L'), ("reverse", 'T', 'T'), ("join", 'L', 'T'), ("items", 'D', 'L'), ("dictsort", 'D', 'L'), ("default", 'A', 'A'), ("d", 'A', 'A'), ("length", 'T', 'N'), ("frob", 'A', 'A'),
    ];

    private static readonly string[] Tests =
    [
        "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "callable", "odd", "even", "divisibleby", "equalto", "eq", "sameas", "ne", "lt",
        "lessthan", "gt", "greaterthan", "le", "ge", "in", "upper", "lower", "frob",
    ];

    private static readonly (string Name, char Takes, char Gives, string Arguments)[] Methods =
    [
        .. "upper lower title capitalize swapcase casefold".Split(' ').Select(name => (name, 'T', 'T', "")),
        .. "strip lstrip rstrip removeprefix removesuffix".Split(' ').Select(name => (name, 'T', 'T', "T")),
        .. "isdigit isalpha isspace isalnum istitle isprintable isidentifier".Split(' ').Select(name => (name, 'T', 'B', "")),
        .. "startswith endswith".Split(' ').Select(name => (name, 'T', 'B', "T")),
        .. "split rsplit partition rpartition".Split(' ').Select(name => (name, 'T', 'L', "TN")),
        .. "find rfind index count".Split(' ').Select(name => (name, 'T', 'N', "T")),
        ("replace", 'T', 'T', "TTN"), ("format", 'T', 'T', "AAA"), ("center", 'T', 'T', "NT"), ("zfill", 'T', 'T', "N"), ("expandtabs", 'T', 'T', "N"), ("translate", 'T', 'T', "D"), ("encode", 'T', 'A', ""), ("fromkeys", 'D', 'D', "L"), ("splitlines", 'T', 'L', ""), ("join", 'T', 'T', "L"), ("items", 'D', 'L', ""), ("keys", 'D', 'L', ""), ("values", 'D', 'L', ""), ("get", 'D', 'A', "TA"), ("update", 'D', 'A', "D"),
        ("append", 'L', 'A', "A"), ("extend", 'L', 'A', "L"), ("insert", 'L', 'A', "NA"), ("pop", 'L', 'A', "N"), ("index", 'L', 'N', "A"), ("count", 'L', 'N', "A"), ("frob", 'A', 'A', ""),
    ];

    private static readonly string[] Arguments = ["attribute", "default", "default_value", "boolean", "indent", "width", "first", "d", "old", "new", "reverse", "precision", "linecount", "a", "sep", "maxsplit"];

    private static readonly string[] Operators = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">", "<=", ">=", "in", "not in", "and", "or"];

    /// <summary>A complete template. Variables include lists and dictionaries that contain themselves.</summary>
    public string Template() =>
        "{% set l = [1, 'a', 2.5] %}{% set a = [1] %}{% set b = [1] %}{% set d = {'a': l} %}{% set ns = namespace(a=1) %}{% set s = 'text' %}{% macro m(x) %}<{{ x }}>{% endmacro %}"
        + (Chance(2) ? "{% set ns.self = ns %}{% set a = [ns, 1] %}{% set ns.a = a %}" : "")
        + (Chance(3) ? "{% set l = l + [d] %}" : "")
        + string.Concat(Enumerable.Range(0, random.Next(1, 4)).Select(_ => Statement(random.Next(3))));

    /// <summary>A statement, an output or literal text.</summary>
    public string Statement(int depth)
    {
        string Body() => depth > 0 ? string.Concat(Enumerable.Range(0, random.Next(1, 3)).Select(_ => Statement(depth - 1))) : "x ";
        string Dash() => Chance(4) ? "-" : "";
        string In(string inside) => "{%" + Dash() + " " + inside + " " + Dash() + "%}";
        string name = Pick(["x", "y", "m", "s", "z", "l"]);
        return random.Next(20) switch
        {
            < 7 => "{{" + Dash() + " " + Expression(depth + 1) + " " + Dash() + "}}",
            7 => Pick(["text ", "\n", "  ", "{# note #}", "{#- note -#}\n", "}} %} "]),
            8 => In($"if {Expression(depth)}") + Body() + (Chance(2) ? In($"elif {Expression(depth)}") + Body() : "") + (Chance(2) ? In("else") + Body() : "") + In("endif"),
            9 or 10 => In($"for {(Chance(4) ? "x, m" : name)} in {Of('L', depth)}{(Chance(4) ? " if " + Expression(1) : "")}{(Chance(9) ? " recursive" : "")}")
                + Body() + (Chance(5) ? In(Pick(["break", "continue"])) : "") + (Chance(4) ? In("else") + Body() : "") + In("endfor"),
            11 or 12 => In($"set {name} = {Expression(depth)}"),
            13 => In($"set ns.{name} = {Expression(depth)}"),
            14 => In($"set {name}") + Body() + In("endset"),
            15 => In($"macro m(x, a={Expression(1)})") + Body() + (Chance(6) ? "{{ m(x) }}" : "") + In("endmacro") + "{{ m(" + Expression(1) + ") }}",
            16 => In($"call m({Expression(1)})") + Body() + In("endcall"),
            17 => In($"filter {Pick(Filters).Name}") + Body() + In("endfilter"),
            18 => In($"for x in range({random.Next(2, 40)})") + In($"set ns.x = {Pick(["[ns.x, ns.x]", "ns.x ~ ns.x", "[ns.x]", "ns.x + ns.x", "{'k': ns.x}", "(ns.x, l)"])}") + In("endfor") + "{{ ns.x " + Pick(["| tojson", "| string | length", "== ns.x[0]", "~ 1", "< ns.x", "in ns.x", "| unique", "| reverse | list", "| sort", ""]) + " }}",
            _ => In("generation") + Body() + In("endgeneration"),
        };
    }

    /// <summary>An expression.</summary>
    public string Expression(int depth) => Of('A', depth);

    // An expression of a kind: Number, Text, List, Dictionary, Boolean, Anything. Occasionally of another kind.
    private string Of(char kind, int depth)
    {
        kind = Chance(12) ? 'A' : kind;
        kind = kind == 'A' ? "NTLDB"[random.Next(5)] : kind;
        if (depth <= 0)
        {
            return Chance(12) ? Pick(Names) : Pick(Values[kind]);
        }

        string Inner(char of) => Of(of, depth - random.Next(1, 3));
        switch (random.Next(8))
        {
            case 0 or 1:
                (string filter, char takes, _) = Pick([.. Filters.Where(f => f.Gives == kind || f.Gives == 'A')]);
                return $"{Inner(takes)} | {filter}{Given(filter, depth - 1)}";
            case 2:
                (string method, char target, _, string arguments) = Pick([.. Methods.Where(m => m.Gives == kind || m.Gives == 'A')]);
                return $"({Inner(target)}).{method}({string.Join(", ", arguments[..random.Next(arguments.Length + 1)].Select(Inner))})";
            case 3:
                return Pick([$"({Inner(kind)} if {Inner('B')} else {Inner(kind)})", $"({Inner(kind)} {Pick(["and", "or"])} {Inner(kind)})", $"{Inner('L')}[{Inner('N')}]", $"({Inner('D')}).{Pick(Names)}", $"({Inner('D')})[{Inner('T')}]"]);
            default:
                return kind switch
                {
                    'N' => Chance(5) ? $"{Pick(["-", "+", "- -"])}{Inner('N')}" : $"({Inner('N')} {Pick(["+", "-", "*", "/", "//", "%", "**"])} {Inner('N')})",
                    'T' => Pick([$"({Inner('T')} ~ {Inner('A')})", $"({Inner('T')} + {Inner('T')})", $"({Inner('T')})[{Slice(Inner)}]", $"({Inner('T')} * {Pick(Values['N'])})", $"strftime_now({Inner('T')})", $"m({Inner('A')})", $"raise_exception({Inner('A')})"]),
                    'L' => Pick([$"[{Inner('A')}, {Inner('A')}]", $"({Inner('L')} + {Inner('L')})", $"({Inner('L')})[{Slice(Inner)}]", $"range({Inner('N')}, {Inner('N')}, {Inner('N')})", $"({Inner('A')}, {Inner('A')})"]),
                    'D' => Pick(["{" + Pick(Values['T']) + ": " + Inner('A') + ", 'b': " + Inner('A') + "}", $"namespace({Inner('D')}, a={Inner('A')})", $"dict({Inner('D')}, b={Inner('A')})"]),
                    _ => Pick([$"({Inner('A')} {Pick(Operators)} {Inner('A')})", $"{Inner('N')} < {Inner('N')} <= {Inner('N')}", $"not {Inner('B')}", $"{Inner('A')} is {(Chance(3) ? "not " : "")}{Pick(Tests)}{(Chance(2) ? "(" + Inner('A') + ")" : "")}", $"{Inner('A')} in {Inner('L')}"]),
                };
        }
    }

    private string Slice(Func<char, string> number) =>
        (Chance(3) ? "" : number('N')) + ":" + (Chance(3) ? "" : number('N')) + (Chance(2) ? ":" + number('N') : "");

    // Arguments of a filter, mostly valid ones.
    private string Given(string filter, int depth) => filter switch
    {
        "map" => $"({Pick(["'upper'", "'map', 'trim'", "'string'", "'length'", "attribute='a.0'", "attribute='role', default=1", "'default', 1", "'sort'"])})",
        "select" or "reject" => $"({Pick(["", "'odd'", "'defined'", "'string'", "'eq', 1", "'in', l", "'lt', 2"])})",
        "selectattr" or "rejectattr" => $"({Pick(["'role'", "'a.b'", "'role', 'eq', 'user'", "'content', 'none'", "'0', 'defined'"])})",
        "sort" => Pick(["", "(attribute='role')", "(true)", "(reverse=true)"]),
        "replace" => $"({Of('T', depth)}, {Of('T', depth)})",
        "round" or "batch" or "indent" or "tojson" => Chance(2) ? "" : $"({(filter == "tojson" ? "indent=" : "")}{Of('N', depth)})",
        "join" => Chance(2) ? "" : $"({Of('T', depth)})",
        "format" => $"({string.Join(", ", Enumerable.Range(0, random.Next(4)).Select(_ => Of('A', depth)))}{(Chance(6) ? ", a=1" : "")})",
        _ => Chance(4) ? $"({Pick(Arguments)}={Of('A', depth)})" : Chance(4) ? $"({Of('A', depth)})" : "",
    };

    private bool Chance(int of) => random.Next(of) == 0;

    private T Pick<T>(T[] from) => from[random.Next(from.Length)];
}
