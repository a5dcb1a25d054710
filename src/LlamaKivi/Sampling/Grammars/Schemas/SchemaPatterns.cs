using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Patterns of schemas. Each is parsed and compiled once, however many names and values are matched with it.</summary>
internal sealed class SchemaPatterns(CompositionWork work)
{
    // Work of parsing a pattern and of compiling the largest, in schemas.
    private const int Parsing = 100;
    private const int Largest = 16_000;

    private readonly Dictionary<string, SchemaPattern> _known = new(StringComparer.Ordinal);

    /// <summary>Finds or parses a pattern.</summary>
    /// <exception cref="GrammarException">The pattern is invalid.</exception>
    public SchemaPattern Of(string pattern, SchemaPart part, string keyword)
    {
        if (!_known.TryGetValue(pattern, out SchemaPattern? known))
        {
            work.Add(Parsing, part.Path);
            try
            {
                PatternNode node = PatternSyntax.Parse(pattern);
                _known.Add(pattern, known = new SchemaPattern(node, new Lazy<Automaton?>(() => Compile(node, part))));
            }
            catch (PatternException e)
            {
                throw part.Refuse(keyword, e.Message);
            }
        }

        return known;
    }

    private Automaton? Compile(PatternNode node, SchemaPart part)
    {
        Automaton? automaton = Pattern.Compile(node);
        long states = automaton?.Accepts.Length ?? int.MaxValue;
        work.Add(Math.Min(states * states / 32, Largest), part.Path);
        return automaton;
    }
}

/// <summary>A pattern.</summary>
/// <param name="Node">Its syntax.</param>
/// <param name="Automaton">The texts that match; null: too many states.</param>
internal sealed record SchemaPattern(PatternNode Node, Lazy<Automaton?> Automaton);
