using System.Globalization;
using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Rules;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>Arrays: items by index, number of items, uniqueness.</summary>
internal sealed class SchemaArrays(JsonSchemaGrammar grammar, SchemaSet set)
{
    // Rules for the remaining values: one per set of values.
    private const int MaxDistinct = 10;
    private const int MaxRules = 1_100;

    private static readonly string[] Null = ["null"];
    private static readonly string[] Booleans = ["true", "false"];

    private string? _why;  // no item fits

    private Gbnf Comma => Gbnf.Sequence(Gbnf.Text(","), grammar.Json.Blank);

    public Gbnf Write()
    {
        int least = set.Least("minItems");
        int? most = set.Most("maxItems");
        if (most < least)
        {
            return grammar.Nothing(set, $"minItems {least} at {set.With("minItems").First().Path} is above maxItems {most} at {set.With("maxItems").First().Path}");
        }

        SchemaPart? unique = set.With("uniqueItems").Cast<SchemaPart?>().FirstOrDefault(part => part!.Value.Flag("uniqueItems"));
        Gbnf items = unique is { } part && most is not 1 ? Distinct(part, least, most) : Items(least, most);
        return items == Gbnf.Never
            ? grammar.Nothing(set, $"no item fits the list at {set.Path}{(_why is null ? "" : $": {_why}")}")
            : grammar.Json.Rules.Add(Gbnf.Sequence(Gbnf.Text("["), grammar.Json.Blank, items, Gbnf.Text("]")), set.Path);
    }

    /// <summary>The schemas of an item.</summary>
    public static IEnumerable<SchemaPart> ItemParts(SchemaSet set, int index)
    {
        foreach (SchemaPart part in set.Parts)
        {
            // In older drafts items is a list of schemas, and additionalItems is the schema of the rest.
            string first = FirstOf(part);
            string rest = first == "items" ? "additionalItems" : "items";
            if (part.Has(first) && part.List(first) is var prefix && index < prefix.Length)
            {
                yield return new SchemaPart(prefix[index], string.Create(CultureInfo.InvariantCulture, $"{part.Path}/{first}/{index}"));
            }
            else if (part.Has(rest))
            {
                yield return part.Child(rest);
            }
        }
    }

    private static string FirstOf(SchemaPart part) => part.TryGet("items", out JsonElement items) && items.ValueKind == JsonValueKind.Array ? "items" : "prefixItems";

    private int Prefix => set.Parts.Max(part => part.Has(FirstOf(part)) ? part.List(FirstOf(part)).Length : 0);

    private Gbnf Item(int index)
    {
        Gbnf value = grammar.Visit(ItemParts(set, index), out string? why);
        _why ??= why;
        return Gbnf.Sequence(value, grammar.Json.Blank);
    }

    private Gbnf Items(int least, int? most)
    {
        int first = Math.Min(Prefix, most ?? int.MaxValue);
        Gbnf rest = most == first ? Gbnf.Never : Item(first);
        if (first == 0)
        {
            Gbnf some = Gbnf.Sequence(rest, Gbnf.Repeat(Gbnf.Sequence(Comma, rest), Math.Max(least - 1, 0), most - 1));
            return least > 0 ? some : Gbnf.Optional(some);
        }

        // All described items, then others.
        return Gbnf.Sequence([
            Item(0), .. Enumerable.Range(1, first - 1).Select(i => Gbnf.Sequence(Comma, Item(i))),
            Gbnf.Repeat(Gbnf.Sequence(Comma, rest), Math.Max(least - first, 0), most - first)]);
    }

    // One rule per set of values that may still follow.
    private Gbnf Distinct(SchemaPart unique, int least, int? most)
    {
        if (Prefix > 0)
        {
            throw unique.Refuse("uniqueItems", "it cannot be combined with prefixItems");
        }

        SchemaSet? item = grammar.Document.Expand(ItemParts(set, 0));
        JsonElement[] values = item is null ? [] : Finite(item)
            ?? throw unique.Refuse("uniqueItems", "a grammar can enforce it only for items with an enum; remove it, or give the items an enum");
        if (least > values.Length)
        {
            return grammar.Nothing(set, $"minItems {least} at {set.With("minItems").First().Path} is above the {values.Length} different items that there are");
        }

        most = Math.Min(most ?? values.Length, values.Length);
        if (values.Length > MaxDistinct && Subsets(values.Length, most.Value) > MaxRules)
        {
            throw unique.Refuse("uniqueItems", $"more than {MaxDistinct} different items take too many rules; set a smaller maxItems");
        }

        string[] texts = [.. values.Select(SchemaValues.TextOf)];
        var names = new Dictionary<ulong, Gbnf>();
        return Rest(0, 0);

        Gbnf Rest(ulong used, int count)
        {
            if (names.TryGetValue(used, out Gbnf? known))
            {
                return known;
            }

            Gbnf more = count == most ? Gbnf.Never : Gbnf.Sequence(count == 0 ? Gbnf.Empty : Comma, Gbnf.Choice(Enumerable.Range(0, texts.Length)
                .Where(i => (used >> i & 1) == 0)
                .Select(i => Gbnf.Sequence(Gbnf.Text(texts[i]), grammar.Json.Blank, Rest(used | 1ul << i, count + 1)))));
            Gbnf rest = grammar.Json.Rules.Add(count < least ? more : Gbnf.Optional(more), $"uniqueItems at {unique.Path}");
            names.Add(used, rest);
            return rest;
        }
    }

    private static long Subsets(int count, int most)
    {
        long sum = 1;
        long of = 1;
        for (int i = 0; i < Math.Min(most, 20) && sum < int.MaxValue; i++)
        {
            of = of * (count - i) / (i + 1);
            sum += of;
        }

        return count > 62 ? long.MaxValue : sum;
    }

    // The possible values of items, if there are few.
    private JsonElement[]? Finite(SchemaSet item)
    {
        if (item.Has("enum", "const") && !item.Has("anyOf", "oneOf"))
        {
            return grammar.Values.Listed(item);
        }

        string[] types = JsonSchemaGrammar.Types(item);
        return Array.TrueForAll(types, type => type is "boolean" or "null") && !item.Has("anyOf", "oneOf")
            ? [.. types.SelectMany(type => type == "null" ? Null : Booleans).Select(text => JsonDocument.Parse(text).RootElement)]
            : null;
    }
}
