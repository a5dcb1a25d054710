using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Rules;

/// <summary>Converts a pattern to rules directly, so that its repetitions stay counted.</summary>
internal sealed class PatternRules(JsonRules json)
{
    /// <summary>Size of a pattern with expanded repetitions.</summary>
    public static long Size(PatternNode node) => node switch
    {
        PatternNode.Sequence sequence => sequence.Items.Sum(Size),
        PatternNode.Choice choice => choice.Options.Sum(Size),
        PatternNode.Repeat repeat => Math.Min(Size(repeat.Item) * (repeat.Most ?? repeat.Least + 1), int.MaxValue),
        _ => 1,
    };

    /// <summary>The strings that contain a match, without quotes; null: the pattern has ^ or $ in its middle.</summary>
    public Gbnf? Write(PatternNode node)
    {
        Gbnf any = Gbnf.Repeat(json.BasicCharacter, 0, null);
        var options = new List<Gbnf>();
        foreach (PatternNode option in node is PatternNode.Choice choice ? choice.Options : [node])
        {
            PatternNode[] items = option is PatternNode.Sequence sequence ? sequence.Items : [option];
            bool isStart = items.FirstOrDefault() is PatternNode.Start;
            bool isEnd = items.LastOrDefault() is PatternNode.End;
            PatternNode[] inner = items[(isStart ? 1 : 0)..^(isEnd ? 1 : 0)];
            if (inner.Any(HasAnchor))
            {
                return null;
            }

            options.Add(Gbnf.Sequence([isStart ? Gbnf.Empty : any, .. inner.Select(Convert), isEnd ? Gbnf.Empty : any]));
        }

        return Gbnf.Choice(options);
    }

    private static bool HasAnchor(PatternNode node) => node switch
    {
        PatternNode.Sequence sequence => sequence.Items.Any(HasAnchor),
        PatternNode.Choice choice => choice.Options.Any(HasAnchor),
        PatternNode.Repeat repeat => HasAnchor(repeat.Item),
        PatternNode.Set => false,
        _ => true,
    };

    private Gbnf Convert(PatternNode node) => node switch
    {
        PatternNode.Set set => json.InString(set.Characters),
        PatternNode.Sequence sequence => Gbnf.Sequence(sequence.Items.Select(Convert)),
        PatternNode.Choice choice => Gbnf.Choice(choice.Options.Select(Convert)),
        PatternNode.Repeat repeat => Gbnf.Repeat(Convert(repeat.Item), repeat.Least, repeat.Most),
        _ => throw new InvalidOperationException($"Unknown pattern node {node.GetType().Name}."),
    };
}
