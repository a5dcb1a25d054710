using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars;

/// <summary>Collects rules over bytes: converts characters to sequences of UTF-8 bytes.</summary>
/// <param name="origins">[rule]: its origin in a schema; null: the source is not a schema.</param>
internal sealed class GrammarBuilder(IReadOnlyDictionary<string, string>? origins = null)
{
    private const int MaxSize = 1 << 20;

    private readonly List<Rule> _rules = [];
    private readonly Dictionary<string, int> _names = [];
    private readonly List<UInt256> _sets = [];
    private readonly List<Expression> _setExpressions = [];  // [set]
    private readonly Dictionary<UInt256, int> _setIndex = [];
    private long _size;

    /// <summary>Defines a rule.</summary>
    /// <param name="name">Name of the rule.</param>
    /// <param name="line">Line of the definition, from 1.</param>
    /// <param name="body">The rule's body.</param>
    public void Define(string name, int line, Expression body)
    {
        Rule rule = _rules[RuleOf(name)];
        if (rule.Body is not null)
        {
            throw new GrammarException($"The grammar defines the rule '{name}' twice.");
        }

        _size += body.Size;
        if (_size > MaxSize)
        {
            throw new GrammarException(rule.Origin is { } origin
                ? $"The schema is too large: up to {(origin.Length > 0 ? origin : "#")} it takes more than {MaxSize} symbols. Shorten its lists of values, its patterns, or the lengths beside them."
                : $"The grammar is too large: with the rule '{name}' (line {line}) it has more than {MaxSize} symbols. Shorten its texts, or its lists of alternatives.");
        }

        (rule.Line, rule.Body) = (line, body);
    }

    public Expression Reference(string name) => new Expression.Reference(RuleOf(name));

    public Expression Byte(byte value)
    {
        UInt256 set = default;
        set.Add(value, value);
        return Set(set);
    }

    /// <summary>One character of a set.</summary>
    public Expression Class(CharacterSet characters)
    {
        UInt256 single = default;
        var options = new List<Expression>();
        foreach ((int low, int high) in characters.Ranges)
        {
            foreach ((byte Low, byte High)[] bytes in Utf8Ranges.Split(low, high))
            {
                if (bytes.Length == 1)
                {
                    single.Add(bytes[0].Low, bytes[0].High);
                    continue;
                }

                options.Add(Expression.Sequence.Of([.. bytes.Select(range =>
                {
                    UInt256 set = default;
                    set.Add(range.Low, range.High);
                    return Set(set);
                })]));
            }
        }

        if (!single.IsEmpty || options.Count == 0)
        {
            options.Insert(0, Set(single));
        }

        return Expression.Choice.Of(options);
    }

    public CompiledGrammar Build(string root)
    {
        foreach ((string name, int rule) in _names)
        {
            if (_rules[rule].Body is null)
            {
                throw new GrammarException($"The grammar has no rule '{name}'.");
            }
        }

        if (!_names.TryGetValue(root, out int start))
        {
            throw new GrammarException($"The grammar has no root rule '{root}'; define it or name another root.");
        }

        return new GrammarCompiler([.. _rules], [.. _sets]).Compile(start);
    }

    private int RuleOf(string name)
    {
        if (!_names.TryGetValue(name, out int rule))
        {
            rule = _rules.Count;
            _rules.Add(new Rule(name) { Origin = origins?.GetValueOrDefault(name) });
            _names.Add(name, rule);
        }

        return rule;
    }

    private Expression Set(UInt256 set)
    {
        if (!_setIndex.TryGetValue(set, out int index))
        {
            index = _sets.Count;
            _sets.Add(set);
            _setExpressions.Add(new Expression.Bytes(index));
            _setIndex.Add(set, index);
        }

        return _setExpressions[index];
    }

    /// <summary>A rule by name.</summary>
    public sealed class Rule(string name)
    {
        public string Name { get; } = name;

        /// <summary>Origin of the rule: a keyword and its place in a schema; empty: JSON itself; null: not from a schema.</summary>
        public string? Origin { get; init; }

        /// <summary>Line of the definition, from 1.</summary>
        public int Line { get; set; }

        /// <summary>The rule's body; null: not defined yet.</summary>
        public Expression? Body { get; set; }
    }
}
