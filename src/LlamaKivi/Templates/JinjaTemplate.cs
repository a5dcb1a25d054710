using LlamaKivi.Templates.Jinja;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Templates;

/// <summary>
/// A template in the Jinja language, rendered as Hugging Face transformers renders models' chat templates. It sees what it is given and nothing else, and its time,
/// memory, depth and output are bounded. May be used by several threads.
/// </summary>
public sealed class JinjaTemplate
{
    private const int MaxLength = 1 << 20;
    private const int MaxMessage = 1000;

    private readonly Parsed _parsed;
    private readonly string? _name;

    /// <summary>Reads a template.</summary>
    /// <exception cref="TemplateException">The template is not valid, or uses what is not supported; the message says where.</exception>
    public JinjaTemplate(string source)
        : this(source, null)
    {
    }

    /// <summary>Reads a template that comes from somewhere.</summary>
    /// <param name="source">The template.</param>
    /// <param name="name">What messages call it, such as "model.gguf, tokenizer.chat_template".</param>
    internal JinjaTemplate(string source, string? name)
    {
        ArgumentNullException.ThrowIfNull(source);
        _name = name;
        if (source.Length > MaxLength)
        {
            throw new TemplateException(Named($"The template has {source.Length} characters; {MaxLength} are allowed."));
        }

        try
        {
            _parsed = new Parser(source).Run();
        }
        catch (Exception e)
        {
            throw new TemplateException(Named(e is TemplateException ? e.Message : $"The template cannot be read: {e.Message}"), e);
        }
    }

    /// <summary>Fills the template in.</summary>
    /// <param name="variables">Names the template may use: null, bool, numbers, strings, JsonElement, and lists and dictionaries of these.</param>
    /// <param name="time">What strftime_now reads; null: the system's clock.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="ArgumentException">A variable is of a type that a template cannot use, contains itself, or nests more than 500 deep.</exception>
    /// <exception cref="TemplateException">The template refuses the variables (raise_exception), or does something that is not possible or not allowed.</exception>
    public string Render(IEnumerable<KeyValuePair<string, object?>> variables, TimeProvider? time = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(variables);
        return Run(Begin(variables, [], null, time ?? TimeProvider.System, cancellationToken));
    }

    /// <summary>Fills the template in, and tells its own text from that of the variables.</summary>
    /// <param name="own">Variables that are the template's own, such as bos_token.</param>
    /// <param name="outside">The other variables, of which one may take the place of an own one.</param>
    /// <param name="marks">The special tokens that outside text is no part of.</param>
    /// <param name="time">What strftime_now reads; null: the system's clock.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <inheritdoc cref="Render(IEnumerable{KeyValuePair{string, object?}}, TimeProvider?, CancellationToken)" path="/exception"/>
    internal PromptText Render(
        IEnumerable<KeyValuePair<string, object?>> own, IEnumerable<KeyValuePair<string, object?>> outside, SpecialMarks marks, TimeProvider? time = null, CancellationToken cancellationToken = default)
    {
        var provenance = new Provenance(marks);
        return provenance.Read(Run(Begin(own, outside, provenance, time ?? TimeProvider.System, cancellationToken)));
    }

    private string Run(Rendering rendering)
    {
        try
        {
            return rendering.Run(_parsed.Body);
        }
        catch (TemplateException e) when (!e.IsRaised)
        {
            throw Failed(e.Message, e);
        }
        catch (Exception e) when (e is not (TemplateException or OperationCanceledException))
        {
            throw Failed($"It failed with {e.GetType().Name}: {e.Message}", e);
        }

        TemplateException Failed(string message, Exception inner) => new(Named($"{Cut(rendering.Budget.Meant(message))} (Line {rendering.Line} of the template.)"), inner);
    }

    private Rendering Begin(
        IEnumerable<KeyValuePair<string, object?>> own, IEnumerable<KeyValuePair<string, object?>> outside, Provenance? provenance, TimeProvider time, CancellationToken cancellationToken)
    {
        var budget = new Budget(cancellationToken, provenance);
        var conversion = new Conversion(budget);
        var marking = new Conversion(budget, provenance);
        var names = new Dictionary<string, object?>(StringComparer.Ordinal);
        Globals.AddTo(names);
        foreach ((string name, object? value) in own)
        {
            names[name] = conversion.From(value);
        }

        foreach ((string name, object? value) in outside)
        {
            names[name] = marking.From(value);
        }

        names["self"] = TemplateReference.Instance;
        budget.Grant(conversion.Size + marking.Size);
        return new Rendering(Scope.Root(names), budget, time, _parsed.Blocks);
    }

    // Messages may quote what the template computes with.
    private static string Cut(string message) => message.Length <= MaxMessage ? message : message[..MaxMessage] + "...";

    private string Named(string message) => _name is null ? message : $"{_name}: {message}";
}
