namespace LlamaKivi.Templates;

/// <summary>A list. Templates cannot change one: the sandbox of transformers refuses append() and the like.</summary>
internal sealed class JinjaList(List<object?> items)
{
    public JinjaList(IEnumerable<object?> items)
        : this([.. items])
    {
    }

    public List<object?> Items { get; } = items;
}
