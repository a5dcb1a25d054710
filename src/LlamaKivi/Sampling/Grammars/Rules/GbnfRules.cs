using System.Globalization;
using System.Text;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>
/// Rules composed in code. Schemas add theirs (<see cref="Schemas.JsonSchemaGrammar"/>), a caller adds its own around them, and the whole is written once, as
/// one grammar. Rules that fit no text are dropped.
/// </summary>
internal sealed class GbnfRules
{
    private const string Root = "root";

    private readonly Dictionary<string, (Gbnf Body, string Origin)> _rules = [];
    private int _count;

    /// <summary>Work of all schemas whose rules are added.</summary>
    public CompositionWork Work { get; } = new();

    /// <summary>A name for a rule that is defined later, which may refer to itself.</summary>
    public string NewName() => string.Create(CultureInfo.InvariantCulture, $"r{_count++}");

    /// <summary>Gives a rule its body.</summary>
    /// <param name="name">From <see cref="NewName"/>, or a name of the caller's own that does not begin with r and a digit.</param>
    /// <param name="body">The texts of the rule.</param>
    /// <param name="origin">Source of the rule, for messages: a keyword and its path in a schema; empty: the rule's users are named instead.</param>
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

    /// <summary>A shared rule by name; the first request defines it.</summary>
    public Gbnf Common(string name, Func<Gbnf> body)
    {
        if (!_rules.ContainsKey(name))
        {
            _rules.Add(name, (Gbnf.Empty, ""));  // it may refer to itself
            _rules[name] = (body(), "");
        }

        return Gbnf.Rule(name);
    }

    /// <summary>Whether a text fits an expression.</summary>
    /// <param name="body">The expression.</param>
    /// <param name="endless">Source of a rule that only goes on forever; null: there is none.</param>
    public bool IsPossible(Gbnf body, out string? endless)
    {
        Dictionary<string, Gbnf> bodies = Reachable(body);
        HashSet<string> finite = Finite(bodies);
        endless = bodies.Keys.Where(name => !finite.Contains(name) && _rules.ContainsKey(name)).Select(name => _rules[name].Origin).LastOrDefault(origin => origin.Length > 0);
        return finite.Contains(Root);
    }

    /// <summary>Writes the rules that a root needs.</summary>
    /// <param name="root">The whole text.</param>
    /// <param name="origin">Source of the root, for messages.</param>
    /// <returns>The grammar, whose root is "root"; null: no text fits.</returns>
    public Grammar? Write(Gbnf root, string origin = "#")
    {
        Dictionary<string, Gbnf> bodies = Reachable(root);
        HashSet<string> finite = Finite(bodies);
        if (!finite.Contains(Root))
        {
            return null;
        }

        var text = new StringBuilder();
        var origins = new Dictionary<string, string>(StringComparer.Ordinal);
        var open = new Queue<string>([Root]);
        while (open.TryDequeue(out string? name))
        {
            if (!origins.TryAdd(name, name == Root ? origin : _rules[name].Origin))
            {
                continue;
            }

            Gbnf body = bodies[name].Without(rule => !finite.Contains(rule));
            text.Append(name).Append(" ::= ");
            body.Write(text, inner: false);
            text.Append('\n');
            foreach (string reference in body.References())
            {
                open.Enqueue(reference);
            }
        }

        return new Grammar(text.ToString(), Root) { Origins = origins };
    }

    // A rule that a refused schema left undefined fits no text.
    private Dictionary<string, Gbnf> Reachable(Gbnf root)
    {
        var bodies = new Dictionary<string, Gbnf>(StringComparer.Ordinal) { [Root] = root };
        var open = new Queue<Gbnf>([root]);
        while (open.TryDequeue(out Gbnf? body))
        {
            foreach (string name in body.References().Where(name => !bodies.ContainsKey(name)))
            {
                bodies[name] = _rules.TryGetValue(name, out (Gbnf Body, string Origin) rule) ? rule.Body : Gbnf.Never;
                open.Enqueue(bodies[name]);
            }
        }

        return bodies;
    }

    // The rules that a text of some length fits.
    private static HashSet<string> Finite(Dictionary<string, Gbnf> bodies)
    {
        var finite = new HashSet<string>(StringComparer.Ordinal);
        var users = new Dictionary<string, List<string>>(StringComparer.Ordinal);
        foreach ((string name, Gbnf body) in bodies)
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

        var open = new Queue<string>(bodies.Keys);
        while (open.TryDequeue(out string? name))
        {
            if (!finite.Contains(name) && bodies[name].Without(rule => !finite.Contains(rule)) != Gbnf.Never)
            {
                finite.Add(name);
                users.GetValueOrDefault(name)?.ForEach(open.Enqueue);
            }
        }

        return finite;
    }
}
