namespace LlamaKivi.Templates;

/// <summary>A list. Templates cannot modify it: the sandbox of transformers rejects append() and similar methods.</summary>
internal sealed class JinjaList(List<object?> items)
{
    public JinjaList(IEnumerable<object?> items)
        : this([.. items])
    {
    }

    public List<object?> Items { get; } = items;
}
