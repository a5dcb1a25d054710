using LlamaKivi.Templates.Jinja;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Templates;

/// <summary>
/// A Jinja template, rendered as Hugging Face transformers renders chat templates. It reads only the given variables, and its time,
/// memory, depth and output are bounded. Thread-safe.
/// </summary>
public sealed class JinjaTemplate
{
    private const int MaxLength = 1 << 20;
    private const int MaxMessage = 1000;

    private readonly Parsed _parsed;
    private readonly string? _name;

    /// <summary>Parses a template.</summary>
    /// <exception cref="TemplateException">The template is invalid or uses an unsupported feature; the message names the place.</exception>
    public JinjaTemplate(string source)
        : this(source, null)
    {
    }

    /// <summary>Parses a template that has a name.</summary>
    /// <param name="source">The template.</param>
    /// <param name="name">Name of the template in messages, such as "model.gguf, tokenizer.chat_template".</param>
    internal JinjaTemplate(string source, string? name)
    {
        ArgumentNullException.ThrowIfNull(source);
        _name = name;
        if (source.Length > MaxLength)
        {
            throw new TemplateException(Named($"The template has {source.Length} characters; at most {MaxLength} are allowed."));
        }

        try
        {
            _parsed = new Parser(source).Run();
        }
        catch (Exception e)
        {
            throw new TemplateException(Named(e is TemplateException ? e.Message : $"The template cannot be parsed: {e.Message}"), e);
        }
    }

    /// <summary>Renders the template.</summary>
    /// <param name="variables">Variables of the template: null, bool, numbers, strings, JsonElement, and lists and dictionaries of these.</param>
    /// <param name="time">Clock of strftime_now; null: the system's clock.</param>
    /// <param name="cancellationToken">Cancels the rendering.</param>
    /// <exception cref="ArgumentException">A variable has an unsupported type, contains itself, or nests more than 500 deep.</exception>
    /// <exception cref="TemplateException">The template calls raise_exception, fails, or exceeds a limit.</exception>
    public string Render(IEnumerable<KeyValuePair<string, object?>> variables, TimeProvider? time = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(variables);
        return Run(Begin(variables, [], null, time ?? TimeProvider.System, cancellationToken));
    }

    /// <summary>Renders the template and tracks which parts of the output come from the variables <paramref name="outside"/>.</summary>
    /// <param name="own">Variables whose text counts as the template's own, such as bos_token.</param>
    /// <param name="outside">The other variables. They override own variables of the same name.</param>
    /// <param name="marks">Special tokens that text from outside must not form.</param>
    /// <param name="time">Clock of strftime_now; null: the system's clock.</param>
    /// <param name="cancellationToken">Cancels the rendering.</param>
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
            throw Failed($"Rendering failed with {e.GetType().Name}: {e.Message}", e);
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

    // Messages may quote long values; shorten them.
    private static string Cut(string message) => message.Length <= MaxMessage ? message : message[..MaxMessage] + "...";

    private string Named(string message) => _name is null ? message : $"{_name}: {message}";
}
