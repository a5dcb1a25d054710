using System.Collections.Concurrent;
using LlamaKivi.Exceptions;
using LlamaKivi.Sampling.Grammars;
using LlamaKivi.Templates;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>A chat template of a model's file, with the answer format detected from its text.</summary>
internal sealed class ChatTemplate
{
    private const string ToolUse = "tool_use";

    private readonly LLamaTemplate _template;
    private readonly string _name;

    private ChatTemplate(LLamaWeights weights, string? name)
    {
        _template = new LLamaTemplate(weights, name, strict: true) { AddAssistant = true };
        _name = $"{Path.GetFileName(weights.ModelPath)}, chat template{(name is null ? "" : $" '{name}'")}";
        Text = new TemplateText(ModelTemplate.Find(weights, name, strict: true)!);
        Format = AnswerFormat.Of(Text.Source);
        Vocabulary = new GrammarVocabulary(weights.Tokenizer, ControlTokens(weights.Tokenizer, Format));
    }

    /// <summary>The templates of a model, each parsed once.</summary>
    internal sealed class Cache(LLamaWeights weights)
    {
        private readonly ConcurrentDictionary<bool, ChatTemplate?> _known = [];

        /// <summary>The vocabulary for prompts without a template.</summary>
        public GrammarVocabulary PlainVocabulary { get; } = new(weights.Tokenizer, new HashSet<int>());

        /// <summary>The special tokens for prompts without a template.</summary>
        public SpecialMarks PlainMarks { get; } = new(weights.Tokenizer, null);

        /// <summary>The template for a conversation; null: the file has none.</summary>
        /// <param name="hasTools">Whether tools are given: the file may have a separate template for them (<c>tool_use</c>).</param>
        public ChatTemplate? Find(bool hasTools) => _known.GetOrAdd(hasTools, _ =>
        {
            string? name = hasTools && ModelTemplate.Names(weights).Contains(ToolUse) ? ToolUse : null;
            return name is null && ModelTemplate.Find(weights, null, strict: false) is null ? null : new ChatTemplate(weights, name);
        });
    }

    public TemplateText Text { get; }

    public AnswerFormat Format { get; }

    /// <summary>The vocabulary, in which the control tokens of the format's marks have text, so that the parser finds them in the answer.</summary>
    public GrammarVocabulary Vocabulary { get; }

    /// <summary>Renders a conversation.</summary>
    public PromptText Render(IEnumerable<object?> messages, Dictionary<string, object?> variables, bool parseSpecialTokens, CancellationToken cancellationToken) =>
        _template.Render(variables, messages, parseSpecialTokens, cancellationToken);

    /// <summary>Checks that the template describes tools.</summary>
    /// <exception cref="MissingTemplateException">The template never reads <c>tools</c>.</exception>
    public void CheckReadsTools()
    {
        if (!Text.Reads("tools"))
        {
            throw new MissingTemplateException(
                $"{_name}: it never reads 'tools', so it cannot describe the given tools to the model. Use a model whose template describes tools, or give none.");
        }
    }

    private static HashSet<int> ControlTokens(Tokenizer tokenizer, AnswerFormat format)
    {
        HashSet<string> marks = [.. format.Marks];
        return tokenizer.HasTexts
            ? [.. Enumerable.Range(0, tokenizer.VocabularySize).Where(id => tokenizer.IsControl(id) && marks.Contains(tokenizer.GetText(id)))]
            : [];
    }
}
