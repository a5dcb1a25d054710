using System.Text;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Templates;
using LlamaKivi.Tokenization;

namespace LlamaKivi;

/// <summary>Formats the messages of a conversation with a chat template: the Jinja template of the model's file, or a given one.</summary>
/// <remarks>
/// The model's own template is evaluated, not replaced by a similar common format. If it adds a default system message when
/// the conversation has none, as SmolLM2's does, the text contains that message.
/// </remarks>
public partial class LLamaTemplate
{
    /// <summary>Encoding of the bytes that <see cref="Apply"/> returns.</summary>
    public static readonly Encoding Encoding = Encoding.UTF8;

    private readonly JinjaTemplate? _template;  // null: the given text is neither a template nor a known name
    private readonly string _given = "";
    private readonly string _bos = "";
    private readonly string _eos = "";
    private readonly int _bosId;
    private readonly bool _addsBos;
    private readonly Lazy<SpecialMarks>? _marks;  // null: created without a model
    private readonly List<TextMessage> _messages = [];

    /// <summary>Uses the default template of a model's file.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="strict">True: the file must have a template. False: chatml is used if it has none.</param>
    /// <exception cref="TemplateNotFoundException">The file has no template.</exception>
    /// <exception cref="TemplateException">The template is invalid.</exception>
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

    /// <summary>Uses a Jinja template or a common format by name. Any other text is an error when the template is applied.</summary>
    /// <param name="customTemplate">
    /// The template; null: chatml. The names are bailing, bailing-think, bailing2, chatglm3, chatglm4, chatml, command-r, deepseek, deepseek-ocr, deepseek2, deepseek3,
    /// exaone-moe, exaone3, exaone4, falcon3, gemma, gigachat, glmedge, gpt-oss, granite, granite-4.0, granite-4.1, grok-2, hunyuan-dense, hunyuan-moe, hunyuan-vl, kimi-k2,
    /// llama2, llama2-sys, llama2-sys-bos, llama2-sys-strip, llama3, llama4, megrez, minicpm, mistral, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7,
    /// mistral-v7-tekken, monarch, openchat, orion, pangu-embedded, phi3, phi4, rwkv-world, seed_oss, smolvlm, solar-open, vicuna, vicuna-orca, yandex and zephyr.
    /// </param>
    /// <exception cref="TemplateException">The template is invalid.</exception>
    public LLamaTemplate(string? customTemplate)
    {
        _given = customTemplate ?? "chatml";
        string? source = CommonTemplates.Find(_given) ?? (_given.Contains("{{", StringComparison.Ordinal) || _given.Contains("{%", StringComparison.Ordinal) ? _given : null);
        _template = source is null ? null : new JinjaTemplate(source);
    }

    /// <summary>Number of messages.</summary>
    public int Count => _messages.Count;

    /// <summary>Whether the text ends with the header of the assistant's answer.</summary>
    public bool AddAssistant { get; set; }

    /// <summary>Returns a message.</summary>
    public TextMessage this[int index] => _messages[index];

    /// <summary>Adds a message.</summary>
    /// <param name="role">"system", "user" or "assistant"; a template may accept others.</param>
    /// <param name="content">Text of the message.</param>
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

    /// <summary>Formats the messages as UTF-8 text.</summary>
    /// <remarks>
    /// A BOS token from the template is omitted if tokenizing the text adds one. The text does not distinguish messages from the template: tokenized with parseSpecial,
    /// names of special tokens in messages become special tokens. Chat clients, and sessions with <see cref="Transformers.PromptTemplateTransformer"/>, distinguish them.
    /// </remarks>
    /// <exception cref="MissingTemplateException">The given text is neither a template nor a known name.</exception>
    /// <exception cref="TemplateException">The template rejects the messages; the exception has the template's own message.</exception>
    public ReadOnlySpan<byte> Apply() => Encoding.GetBytes(Render());

    internal string Render(CancellationToken cancellationToken = default) => Render(null, null, parseSpecialTokens: true, cancellationToken).Value;

    /// <summary>Renders messages.</summary>
    /// <param name="more">Variables of the template other than the messages.</param>
    /// <param name="messages">The messages; null: the added ones.</param>
    /// <param name="parseSpecialTokens">True: special tokens are matched anywhere. False: only in the template's own text; this needs a model's vocabulary.</param>
    /// <param name="cancellationToken">Cancels the rendering.</param>
    internal PromptText Render(
        IEnumerable<KeyValuePair<string, object?>>? more, IEnumerable<object?>? messages, bool parseSpecialTokens, CancellationToken cancellationToken)
    {
        JinjaTemplate template = _template ?? throw new MissingTemplateException(
            $"'{_given}' is neither a template in the Jinja language nor the name of one; the names are {string.Join(", ", CommonTemplates.Names.Order(StringComparer.Ordinal))}.");
        var own = new Dictionary<string, object?>(StringComparer.Ordinal)
        {
            ["tools"] = null,  // none instead of undefined, as in transformers
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
        /// <summary>Creates a message.</summary>
        public TextMessage(string role, string content)
        {
            ArgumentNullException.ThrowIfNull(role);
            ArgumentNullException.ThrowIfNull(content);
            Role = role;
            Content = content;
        }

        /// <summary>"system", "user" or "assistant"; a template may accept others.</summary>
        public string Role { get; }

        /// <summary>Text of the message.</summary>
        public string Content { get; }

        /// <summary>Whether two messages are equal.</summary>
        public static bool operator ==(TextMessage left, TextMessage right) => left.Equals(right);

        /// <summary>Whether two messages differ.</summary>
        public static bool operator !=(TextMessage left, TextMessage right) => !left.Equals(right);

        /// <summary>Deconstructs the message.</summary>
        public void Deconstruct(out string role, out string content) => (role, content) = (Role, Content);

        /// <inheritdoc/>
        public bool Equals(TextMessage other) => Role == other.Role && Content == other.Content;

        /// <inheritdoc/>
        public override bool Equals(object? obj) => obj is TextMessage other && Equals(other);

        /// <inheritdoc/>
        public override int GetHashCode() => HashCode.Combine(Role, Content);
    }
}
