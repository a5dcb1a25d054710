using System.Collections.Frozen;

namespace LlamaKivi.Templates.Jinja;

/// <summary>A filter: {{ value | filter }}.</summary>
internal static class Filters
{
    private static readonly FrozenDictionary<string, Operation> ByName = TextFilters.All.Concat(NumberFilters.All).Concat(SequenceFilters.All).Concat(SelectionFilters.All).Concat(MarkupFilters.All)
        .ToFrozenDictionary(filter => filter.Name, StringComparer.Ordinal);

    public static Operation? Find(string name) => ByName.GetValueOrDefault(name);
}
