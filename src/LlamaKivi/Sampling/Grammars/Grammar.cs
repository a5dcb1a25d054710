using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using LlamaKivi.Exceptions;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Sampling.Grammars.Schemas;

namespace LlamaKivi.Sampling;

/// <summary>A grammar that a text must follow, in the GBNF notation: <c>root ::= "yes" | "no"</c>.</summary>
/// <param name="Gbnf">The rules.</param>
/// <param name="Root">Name of the rule for the whole text.</param>
public record Grammar(string Gbnf, string Root)
{
    private Compilation? _compiled;
    private (string Gbnf, IReadOnlyDictionary<string, string> Places)? _origins;

    /// <summary>[rule]: what it was written for in a schema, for messages. A copy with other rules does not take them over.</summary>
    internal IReadOnlyDictionary<string, string>? Origins
    {
        get => _origins is var (gbnf, places) && ReferenceEquals(gbnf, Gbnf) ? places : null;
        init => _origins = value is null ? null : (Gbnf, value);
    }

    // Compiled when it is first used; a copy with other rules does not take it over.
    internal CompiledGrammar Compiled
    {
        get
        {
            Compilation? known = _compiled;
            if (known is null || known.Gbnf != Gbnf || known.Root != Root)
            {
                CompiledGrammar grammar = GbnfParser.Parse(Gbnf, Root, Origins);
                GrammarCheck.Run(grammar);
                _compiled = known = new Compilation(Gbnf, Root, grammar);
            }

            return known.Grammar;
        }
    }

    /// <summary>The grammar of JSON texts that a JSON schema describes. The keywords are listed in docs/structured-output.md.</summary>
    /// <exception cref="GrammarException">The schema is not valid, fits no text, or uses what is not supported; the message names the keyword and its place.</exception>
    public static Grammar FromJsonSchema(JsonElement schema) => JsonSchemaGrammar.Of(schema);

    /// <summary>The grammar of JSON texts that a JSON schema describes. The keywords are listed in docs/structured-output.md.</summary>
    /// <exception cref="GrammarException">The schema is not valid, fits no text, or uses what is not supported; the message names the keyword and its place.</exception>
    /// <exception cref="JsonException">The text is no JSON.</exception>
    public static Grammar FromJsonSchema([StringSyntax(StringSyntaxAttribute.Json)] string schema)
    {
        using JsonDocument document = JsonDocument.Parse(schema);
        return FromJsonSchema(document.RootElement);
    }

    /// <summary>The grammar of all JSON texts.</summary>
    public static Grammar Json() => JsonSchemaGrammar.AnyJson();

    /// <summary>Checks the rules, and that what they allow next can be found within milliseconds for each token.</summary>
    /// <remarks>
    /// A bounded search, along texts that make the most of the grammar's ambiguity: a grammar that passes can still be refused while a text is written under it.
    /// </remarks>
    /// <exception cref="GrammarException">A rule is not valid, too large or too ambiguous; the message says which and where.</exception>
    public void Validate() => _ = Compiled;

    /// <inheritdoc/>
    public virtual bool Equals(Grammar? other) => other is not null && EqualityContract == other.EqualityContract && Gbnf == other.Gbnf && Root == other.Root;

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Gbnf, Root);

    // One object, so that threads that use the grammar at once see all of it or none.
    private sealed record Compilation(string Gbnf, string Root, CompiledGrammar Grammar);
}

/// <summary>A grammar or schema is not valid, or a text cannot go on under it.</summary>
public sealed class GrammarException(string message) : RuntimeError(message);
