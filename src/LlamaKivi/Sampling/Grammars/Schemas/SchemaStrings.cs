using System.Globalization;
using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Strings: length, pattern, format, encoding and exclusions. Lengths count characters; an escape counts as one.</summary>
internal sealed class SchemaStrings(JsonSchemaGrammar grammar, SchemaSet set)
{
    // Larger patterns are repeated with counters if nothing else bounds the text, because the masks of a counter are reused.
    private const int MaxPlaces = 300;

    // Maximum number of states of a pattern combined with a length.
    private const int MaxCounted = 5_000;

    private static readonly Gbnf Quote = Gbnf.Text("\"");

    /// <summary>The string with its quotes.</summary>
    public Gbnf Write() => IsFree ? grammar.Json.String : grammar.Json.Rules.Add(Gbnf.Sequence(Quote, Rest([])), set.Path);

    /// <summary>The string after its opening quote.</summary>
    /// <param name="excluded">Excluded texts.</param>
    public Gbnf Rest(IReadOnlyCollection<string> excluded)
    {
        int least = set.Least("minLength");
        int? most = set.Most("maxLength");
        if (most < least)
        {
            return grammar.Nothing(set, $"minLength {least} at {set.With("minLength").First().Path} is above maxLength {most} at {set.With("maxLength").First().Path}");
        }

        List<Constraint> constraints = Constraints();
        string[] words = [.. excluded, .. SchemaValues.Excluded(set).Where(value => value.ValueKind == JsonValueKind.String).Select(value => value.GetString()!)];
        if (constraints.Count == 0 && words.Length == 0)
        {
            // A string of at most one character is .NET's char, one UTF-16 unit.
            return Gbnf.Sequence(Gbnf.Repeat(most == 1 ? grammar.Json.BasicCharacter : grammar.Json.Character, least, most), Quote);
        }

        if (constraints is [{ Node: { } node } only] && words.Length == 0 && least == 0 && most is null && (PatternRules.Size(node) > MaxPlaces || only.Automaton is null))
        {
            return new PatternRules(grammar.Json).Write(node) is { } counted ? Gbnf.Sequence(counted, Quote)
                : only.Automaton is null ? throw only.Part.Refuse(only.Keyword, "it takes too many states; shorten it or its repetitions") : Counted(only.Automaton, least, most, only);
        }

        Automaton all = Automaton.Universal;
        foreach (Constraint constraint in constraints)
        {
            all = (constraint.Automaton is { } one ? ReferenceEquals(all, Automaton.Universal) ? one : all.Intersect(one) : null)
                ?? throw constraint.Part.Refuse(constraint.Keyword, "it takes too many states; shorten it or its repetitions");
        }

        Constraint? last = constraints.Count > 0 ? constraints[^1] : null;
        if (words.Length > 0)
        {
            all = all.Except(Automaton.OfWords(words)) ?? throw set.Parts[0].Refuse("not", "it takes too many states");
        }

        return all.IsEmpty ? grammar.Nothing(set, $"no text fits {Names(constraints)} at {set.Path}") : Counted(all, least, most, last);
    }

    /// <summary>Whether a text fits.</summary>
    public bool Fits(string text)
    {
        int length = text.EnumerateRunes().Count();
        return length >= set.Least("minLength") && length <= (set.Most("maxLength") ?? int.MaxValue)
            && Constraints().TrueForAll(constraint => constraint.Automaton is null || constraint.Automaton.Matches(text));
    }

    private bool IsFree => !set.Has("minLength", "maxLength", "pattern", "contentEncoding", "not") && Constraints().Count == 0;

    private static string Names(List<Constraint> constraints) => string.Join(" and ", constraints.Select(constraint => constraint.Keyword).DefaultIfEmpty("not"));

    private List<Constraint> Constraints()
    {
        var found = new List<Constraint>();
        foreach (SchemaPart part in set.Parts)
        {
            if (part.Has("pattern"))
            {
                string pattern = part.Text("pattern");
                if (SchemaFormats.FindWritten(pattern) is { } written)
                {
                    found.Add(new Constraint("pattern", part, null, written));
                }
                else
                {
                    found.Add(new Constraint("pattern", part, grammar.Patterns.Of(pattern, part, "pattern")));
                }
            }

            if (part.Has("format") && part.Text("format") is var format && !SchemaFormats.IsFree(format))
            {
                found.Add(new Constraint("format", part, null, SchemaFormats.Find(format)
                    ?? throw part.Refuse("format", $"'{format}' is unknown; use one of {string.Join(", ", SchemaFormats.Names)}")));
            }

            if (part.Has("contentEncoding") && part.Text("contentEncoding") is var encoding)
            {
                found.Add(new Constraint("contentEncoding", part, null, SchemaFormats.FindEncoding(encoding)
                    ?? throw part.Refuse("contentEncoding", $"'{encoding}' is unknown; use base64, base64url or base16")));
            }

            AddDates(found, part);
        }

        found.RemoveAll(constraint => constraint.Node is null && ReferenceEquals(constraint.Automaton, Automaton.Universal));
        return found;
    }

    // Bounds of dates are strings. Only the dates are compared, not the time of day of a bound.
    private static void AddDates(List<Constraint> found, SchemaPart part)
    {
        foreach (string keyword in new[] { "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum" })
        {
            if (!part.TryGet(keyword, out JsonElement value) || value.ValueKind != JsonValueKind.String)
            {
                continue;
            }

            if (!DateOnly.TryParse(value.GetString()!.Split('T', ' ')[0], CultureInfo.InvariantCulture, out DateOnly date))
            {
                throw part.Refuse(keyword, $"'{value.GetString()}' is not a date; only dates and numbers can have bounds");
            }

            date = keyword switch { "exclusiveMinimum" => date.AddDays(1), "exclusiveMaximum" => date.AddDays(-1), _ => date };
            found.Add(new Constraint(keyword, part, null, TextBound.Of(date.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture), isLow: keyword.EndsWith("inimum", StringComparison.Ordinal))));
        }
    }

    // The texts of an automaton with a length, after the opening quote.
    private Gbnf Counted(Automaton automaton, int least, int? most, Constraint? last)
    {
        string origin = $"{last?.Keyword ?? "not"} at {last?.Part.Path ?? set.Path}";
        if (least == 0 && most is null)
        {
            return grammar.Json.Of(automaton, grammar.Json.InString, origin, Quote);
        }

        (int shortest, int? longest) = automaton.Lengths();
        return shortest > most ? grammar.Nothing(set, $"no text that fits {origin} is as short as maxLength at {set.With("maxLength").First().Path}")
            : longest < least ? grammar.Nothing(set, $"no text that fits {origin} is as long as minLength at {set.With("minLength").First().Path}")
            : shortest >= least && (most is null || longest <= most) ? grammar.Json.Of(automaton, grammar.Json.InString, origin, Quote)
            : new CountedAutomatonRules(grammar.Json, automaton, origin, Quote, MaxCounted).Write(least, most)
                ?? throw (last?.Part ?? set.Parts[0]).Refuse(last?.Keyword ?? "not", $"with minLength {least} and maxLength {most} it takes more than {MaxCounted} states; write the length into the pattern, or lower it");
    }

    /// <summary>A constraint of a text.</summary>
    private sealed class Constraint(string keyword, SchemaPart part, SchemaPattern? pattern, Automaton? automaton = null)
    {
        public string Keyword => keyword;

        public SchemaPart Part => part;

        /// <summary>The pattern; null: the constraint is not a pattern keyword.</summary>
        public PatternNode? Node => pattern?.Node;

        /// <summary>The texts; null: too many states.</summary>
        public Automaton? Automaton => pattern is null ? automaton : pattern.Automaton.Value;
    }
}
