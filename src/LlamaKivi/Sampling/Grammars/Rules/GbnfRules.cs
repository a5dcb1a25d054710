using System.Globalization;
using System.Text;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>
/// Rules that are composed in code. Schemas add theirs (<see cref="Schemas.JsonSchemaGrammar"/>), a caller adds its own around them, and the whole is written as
/// one grammar. What no text fits is left out on the way.
/// </summary>
internal sealed class GbnfRules
{
    private readonly Dictionary<string, (Gbnf Body, string Origin)> _rules = [];
    private int _count;

    /// <summary>A name for a rule that is defined later, which may refer to itself.</summary>
    public string NewName() => string.Create(CultureInfo.InvariantCulture, $"r{_count++}");

    /// <summary>Gives a rule its body.</summary>
    /// <param name="name">From <see cref="NewName"/>, or a name of the caller's own that does not begin with r and a digit.</param>
    /// <param name="body">What its texts are.</param>
    /// <param name="origin">Where it comes from, for messages: a keyword and its place in a schema.</param>
    public void Define(string name, Gbnf body, string origin) => _rules.Add(name, (body, origin));

    /// <summary>A rule for a part that is used more than once, or that is long.</summary>
    public Gbnf Add(Gbnf body, string origin)
    {
        if (body == Gbnf.Never || body == Gbnf.Empty)
        {
            return body;
        }

        string name = NewName();
        Define(name, body, origin);
        return Gbnf.Rule(name);
    }

    /// <summary>A rule of a name, which is defined by the first who asks for it.</summary>
    public Gbnf Common(string name, Func<Gbnf> body)
    {
        if (!_rules.ContainsKey(name))
        {
            _rules.Add(name, (Gbnf.Empty, ""));  // it may refer to itself
            _rules[name] = (body(), "");
        }

        return Gbnf.Rule(name);
    }

    /// <summary>Writes the rules that a root needs.</summary>
    /// <param name="root">What the whole text is.</param>
    /// <returns>The grammar, whose root is "root"; null: no text fits.</returns>
    public Grammar? Write(Gbnf root)
    {
        Dictionary<string, (Gbnf Body, string Origin)> rules = new(_rules, StringComparer.Ordinal) { ["root"] = (root, "#") };
        HashSet<string> finite = Finite(rules);
        if (!finite.Contains("root"))
        {
            return null;
        }

        var text = new StringBuilder();
        var origins = new Dictionary<string, string>(StringComparer.Ordinal);
        var open = new Queue<string>(["root"]);
        while (open.TryDequeue(out string? name))
        {
            if (!origins.TryAdd(name, rules[name].Origin))
            {
                continue;
            }

            Gbnf body = rules[name].Body.Without(rule => !finite.Contains(rule));
            text.Append(name).Append(" ::= ");
            body.Write(text, inner: false);
            text.Append('\n');
            foreach (string reference in body.References())
            {
                open.Enqueue(reference);
            }
        }

        return new Grammar(text.ToString(), "root") { Origins = origins };
    }

    // The rules that a text of some length fits: one that can only go on forever fits none.
    private static HashSet<string> Finite(Dictionary<string, (Gbnf Body, string Origin)> rules)
    {
        var finite = new HashSet<string>(StringComparer.Ordinal);
        var users = new Dictionary<string, List<string>>(StringComparer.Ordinal);
        foreach ((string name, (Gbnf body, _)) in rules)
        {
            foreach (string reference in body.References())
            {
                if (!users.TryGetValue(reference, out List<string>? of))
                {
                    users.Add(reference, of = []);
                }

                of.Add(name);
            }
        }

        var open = new Queue<string>(rules.Keys);
        while (open.TryDequeue(out string? name))
        {
            if (!finite.Contains(name) && rules[name].Body.Without(rule => !finite.Contains(rule)) != Gbnf.Never)
            {
                finite.Add(name);
                users.GetValueOrDefault(name)?.ForEach(open.Enqueue);
            }
        }

        return finite;
    }
}
