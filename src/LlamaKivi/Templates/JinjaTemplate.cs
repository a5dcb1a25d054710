namespace LlamaKivi.Templates;

/// <summary>
/// A template in the part of the Jinja language that models' chat templates use: output, if, for, set, macros, filters, tests, namespaces. It sees what it is
/// given and nothing else, and its steps, depth and output are bounded. May be used by several threads.
/// </summary>
public sealed class JinjaTemplate
{
    private const int MaxLength = 1 << 20;
    private const int MaxMessage = 1000;

    private readonly Statement[] _body;
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
            // As the language has it, one line break at the end belongs to the file.
            _body = new JinjaParser(source.EndsWith('\n') ? source[..^1] : source).Run();
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
        var interpreter = new JinjaInterpreter(variables, time ?? TimeProvider.System, cancellationToken);
        try
        {
            return interpreter.Run(_body);
        }
        catch (TemplateException e) when (!e.IsRaised)
        {
            throw Failed(e.Message, e);
        }
        catch (Exception e) when (e is not (TemplateException or OperationCanceledException))
        {
            throw Failed($"It failed with {e.GetType().Name}: {e.Message}", e);
        }

        TemplateException Failed(string message, Exception inner) => new(Named($"{Cut(message)} (Line {interpreter.Line} of the template.)"), inner);
    }

    // Messages may quote what the template computes with.
    private static string Cut(string message) => message.Length <= MaxMessage ? message : message[..MaxMessage] + "...";

    private string Named(string message) => _name is null ? message : $"{_name}: {message}";
}
