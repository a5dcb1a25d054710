using System.Text;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Templates;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>The messages of a conversation, written as a model's chat template has it. The template is the Jinja one of the model's file, or one that is given.</summary>
/// <remarks>
/// The model's own template is evaluated as it stands, and not replaced by a common format that looks like it. Where it puts in a system message of its own if
/// the conversation has none, as SmolLM2's does, that is in the text.
/// </remarks>
public partial class LLamaTemplate
{
    /// <summary>What <see cref="Apply"/> encodes its text with.</summary>
    public static readonly Encoding Encoding = Encoding.UTF8;

    private readonly JinjaTemplate? _template;  // null: what was given is no template
    private readonly string _given = "";
    private readonly string _bos = "";
    private readonly string _eos = "";
    private readonly int _bosId;
    private readonly bool _addsBos;
    private readonly Lazy<SpecialMarks>? _marks;  // null: of no model
    private readonly List<TextMessage> _messages = [];

    /// <summary>Takes the default template of a model's file.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="strict">True: the file must have a template. False: where it has none, chatml takes its place.</param>
    /// <exception cref="TemplateNotFoundException">The file has no template.</exception>
    /// <exception cref="TemplateException">The template is not valid.</exception>
    public LLamaTemplate(LLamaWeights weights, bool strict = true)
        : this(weights ?? throw new ArgumentNullException(nameof(weights)), null, strict)
    {
    }

    internal LLamaTemplate(LLamaWeights weights, string? name, bool strict)
    {
        string origin = $"{Path.GetFileName(weights.ModelPath)}, chat template{(name is null ? "" : $" '{name}'")}";
        string source = ModelTemplate.Find(weights, name, strict) ?? CommonTemplates.Find("chatml")!;
        _template = new JinjaTemplate(source, origin);
        Tokenizer tokenizer = weights.Tokenizer;
        _marks = new Lazy<SpecialMarks>(() => new SpecialMarks(tokenizer, source));
        _bos = tokenizer.BosId is int bos && tokenizer.HasTexts ? tokenizer.GetText(bos) : "";
        _eos = tokenizer.EosId is int eos && tokenizer.HasTexts ? tokenizer.GetText(eos) : "";
        _bosId = tokenizer.BosId ?? -1;
        _addsBos = tokenizer.AddBos;
    }

    /// <summary>Takes a template in the Jinja language, or the name of a common format. What is neither is found out when it is applied.</summary>
    /// <param name="customTemplate">
    /// The template; null: chatml. The names are bailing, bailing-think, bailing2, chatglm3, chatglm4, chatml, command-r, deepseek, deepseek-ocr, deepseek2, deepseek3,
    /// exaone-moe, exaone3, exaone4, falcon3, gemma, gigachat, glmedge, gpt-oss, granite, granite-4.0, granite-4.1, grok-2, hunyuan-dense, hunyuan-moe, hunyuan-vl, kimi-k2,
    /// llama2, llama2-sys, llama2-sys-bos, llama2-sys-strip, llama3, llama4, megrez, minicpm, mistral, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7,
    /// mistral-v7-tekken, monarch, openchat, orion, pangu-embedded, phi3, phi4, rwkv-world, seed_oss, smolvlm, solar-open, vicuna, vicuna-orca, yandex and zephyr.
    /// </param>
    /// <exception cref="TemplateException">The template is not valid.</exception>
    public LLamaTemplate(string? customTemplate)
    {
        _given = customTemplate ?? "chatml";
        string? source = CommonTemplates.Find(_given) ?? (_given.Contains("{{", StringComparison.Ordinal) || _given.Contains("{%", StringComparison.Ordinal) ? _given : null);
        _template = source is null ? null : new JinjaTemplate(source);
    }

    /// <summary>Messages so far.</summary>
    public int Count => _messages.Count;

    /// <summary>Whether the text ends where the model's answer begins.</summary>
    public bool AddAssistant { get; set; }

    /// <summary>A message.</summary>
    public TextMessage this[int index] => _messages[index];

    /// <summary>Adds a message.</summary>
    /// <param name="role">"system", "user" or "assistant"; templates may know others.</param>
    /// <param name="content">Its text.</param>
    public LLamaTemplate Add(string role, string content) => Add(new TextMessage(role, content));

    /// <summary>Adds a message.</summary>
    public LLamaTemplate Add(TextMessage message)
    {
        _messages.Add(message);
        return this;
    }

    /// <summary>Removes a message.</summary>
    public LLamaTemplate RemoveAt(int index)
    {
        _messages.RemoveAt(index);
        return this;
    }

    /// <summary>Removes all messages.</summary>
    public void Clear() => _messages.Clear();

    /// <summary>The text of the messages, in UTF-8.</summary>
    /// <remarks>
    /// A BOS that the template writes is left out where reading the text would put another before it. The text does not say which of its parts the messages gave: where it is encoded with
    /// special tokens, names of them in messages are such tokens, too. Chat clients and <see cref="Transformers.PromptTemplateTransformer"/> in a <see cref="ChatSession"/> tell them apart.
    /// </remarks>
    /// <exception cref="MissingTemplateException">What was given is neither a template nor the name of one.</exception>
    /// <exception cref="TemplateException">The template refuses the messages; the message is the template's own.</exception>
    public ReadOnlySpan<byte> Apply() => Encoding.GetBytes(Render());

    internal string Render(CancellationToken cancellationToken = default) => Render(null, null, parseSpecialTokens: true, cancellationToken).Value;

    /// <summary>The text of messages.</summary>
    /// <param name="more">Variables of the template beside the messages.</param>
    /// <param name="messages">The messages; null: those that were added.</param>
    /// <param name="parseSpecialTokens">Whether special tokens are read from messages and variables, too; otherwise the text knows its origin. A template of no model does not.</param>
    /// <param name="cancellationToken">Stops it.</param>
    internal PromptText Render(
        IEnumerable<KeyValuePair<string, object?>>? more, IEnumerable<object?>? messages, bool parseSpecialTokens, CancellationToken cancellationToken)
    {
        JinjaTemplate template = _template ?? throw new MissingTemplateException(
            $"'{_given}' is neither a template in the Jinja language nor the name of one; the names are {string.Join(", ", CommonTemplates.Names.Order(StringComparer.Ordinal))}.");
        var own = new Dictionary<string, object?>(StringComparer.Ordinal)
        {
            ["tools"] = null,  // none and not undefined, as transformers has it
            ["documents"] = null,
            ["add_generation_prompt"] = AddAssistant,
            ["bos_token"] = _bos,
            ["eos_token"] = _eos,
        };
        var outside = new Dictionary<string, object?>(more ?? [], StringComparer.Ordinal);
        outside.TryAdd(
            "messages",
            messages ?? _messages.Select(message => (object?)new Dictionary<string, object?>(StringComparer.Ordinal) { ["role"] = message.Role, ["content"] = message.Content }));
        PromptText text = parseSpecialTokens || _marks is null
            ? new PromptText(template.Render(own.Where(item => !outside.ContainsKey(item.Key)).Concat(outside), cancellationToken: cancellationToken))
            : template.Render(own, outside, _marks.Value, cancellationToken: cancellationToken);
        return _addsBos && _bos.Length > 0 && text.Value.StartsWith(_bos, StringComparison.Ordinal) && text.Allows(_bosId, 0, _bos.Length) ? text.From(_bos.Length) : text;
    }

    /// <summary>One message.</summary>
    public readonly struct TextMessage : IEquatable<TextMessage>
    {
        /// <summary>Makes a message.</summary>
        public TextMessage(string role, string content)
        {
            ArgumentNullException.ThrowIfNull(role);
            ArgumentNullException.ThrowIfNull(content);
            Role = role;
            Content = content;
        }

        /// <summary>"system", "user" or "assistant"; templates may know others.</summary>
        public string Role { get; }

        /// <summary>Its text.</summary>
        public string Content { get; }

        /// <summary>Whether two messages are the same.</summary>
        public static bool operator ==(TextMessage left, TextMessage right) => left.Equals(right);

        /// <summary>Whether two messages differ.</summary>
        public static bool operator !=(TextMessage left, TextMessage right) => !left.Equals(right);

        /// <summary>Takes the message apart.</summary>
        public void Deconstruct(out string role, out string content) => (role, content) = (Role, Content);

        /// <inheritdoc/>
        public bool Equals(TextMessage other) => Role == other.Role && Content == other.Content;

        /// <inheritdoc/>
        public override bool Equals(object? obj) => obj is TextMessage other && Equals(other);

        /// <inheritdoc/>
        public override int GetHashCode() => HashCode.Combine(Role, Content);
    }
}
