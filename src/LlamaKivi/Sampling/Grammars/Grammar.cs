using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using LlamaKivi.Exceptions;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Sampling.Grammars.Schemas;

namespace LlamaKivi.Sampling;

/// <summary>A grammar that generated text must match, in GBNF: <c>root ::= "yes" | "no"</c>.</summary>
/// <param name="Gbnf">The rules.</param>
/// <param name="Root">Name of the rule for the whole text.</param>
public record Grammar(string Gbnf, string Root)
{
    private Compilation? _compiled;
    private (string Gbnf, IReadOnlyDictionary<string, string> Places)? _origins;

    /// <summary>[rule]: its origin in a schema, for messages. A copy with other rules does not keep them.</summary>
    internal IReadOnlyDictionary<string, string>? Origins
    {
        get => _origins is var (gbnf, places) && ReferenceEquals(gbnf, Gbnf) ? places : null;
        init => _origins = value is null ? null : (Gbnf, value);
    }

    // Compiled on first use; a copy with other rules compiles its own.
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

    /// <summary>Creates the grammar of JSON texts that fit a JSON schema. docs/structured-output.md lists the keywords.</summary>
    /// <exception cref="GrammarException">The schema is invalid, fits no text, or uses an unsupported keyword; the message names the keyword and its JSON pointer.</exception>
    public static Grammar FromJsonSchema(JsonElement schema) => JsonSchemaGrammar.Of(schema);

    /// <summary>Creates the grammar of JSON texts that fit a JSON schema. docs/structured-output.md lists the keywords.</summary>
    /// <exception cref="GrammarException">The schema is invalid, fits no text, or uses an unsupported keyword; the message names the keyword and its JSON pointer.</exception>
    /// <exception cref="JsonException">The schema is not valid JSON.</exception>
    public static Grammar FromJsonSchema([StringSyntax(StringSyntaxAttribute.Json)] string schema)
    {
        using JsonDocument document = JsonDocument.Parse(schema);
        return FromJsonSchema(document.RootElement);
    }

    /// <summary>The grammar of all JSON texts.</summary>
    public static Grammar Json() => JsonSchemaGrammar.AnyJson();

    /// <summary>Checks the rules, and that token masks can be computed within milliseconds.</summary>
    /// <remarks>
    /// A bounded search over texts that maximize the grammar's ambiguity: a grammar that passes can still be rejected during generation.
    /// </remarks>
    /// <exception cref="GrammarException">A rule is invalid, too large or too ambiguous; the message names it and its place.</exception>
    public void Validate() => _ = Compiled;

    /// <inheritdoc/>
    public virtual bool Equals(Grammar? other) => other is not null && EqualityContract == other.EqualityContract && Gbnf == other.Gbnf && Root == other.Root;

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(Gbnf, Root);

    // One object, so that concurrent threads see either all of it or nothing.
    private sealed record Compilation(string Gbnf, string Root, CompiledGrammar Grammar);
}

/// <summary>A grammar or schema is invalid, or a text cannot continue under it.</summary>
public sealed class GrammarException(string message) : RuntimeError(message);
