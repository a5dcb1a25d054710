using System.Text.Json;
using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>The schemas of an object's property values.</summary>
internal sealed class SchemaProperties(SchemaPatterns patterns)
{
    /// <summary>The schemas of a property's value.</summary>
    public IEnumerable<SchemaPart> ValueParts(SchemaSet set, string name)
    {
        foreach (SchemaPart part in set.Parts)
        {
            bool isDescribed = false;
            if (part.Has("properties") && part.Object("properties").TryGetProperty(name, out _))
            {
                isDescribed = true;
                yield return part.Child("properties", name);
            }

            foreach ((SchemaPart value, Automaton names) in PatternsOf(part))
            {
                if (names.Matches(name))
                {
                    isDescribed = true;
                    yield return value;
                }
            }

            if (!isDescribed && part.Has("additionalProperties"))
            {
                yield return part.Child("additionalProperties");
            }
        }
    }

    /// <summary>The schemas of patternProperties, with the names that match.</summary>
    public IEnumerable<(SchemaPart Value, Automaton Names)> PatternsOf(SchemaPart part)
    {
        if (!part.Has("patternProperties"))
        {
            yield break;
        }

        foreach (JsonProperty property in part.Object("patternProperties").EnumerateObject())
        {
            Automaton? names = patterns.Of(property.Name, part, "patternProperties").Automaton.Value;
            yield return (part.Child("patternProperties", property.Name), names ?? throw part.Refuse("patternProperties", $"'{property.Name}' takes too many states"));
        }
    }
}
