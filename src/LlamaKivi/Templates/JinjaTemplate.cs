namespace LlamaKivi.Templates;

/// <summary>
/// A template in the part of the Jinja language that models' chat templates use: output, if, for, set, macros, filters, tests, namespaces. It sees what it is
/// given and nothing else, and its steps, depth and output are bounded. May be used by several threads.
/// </summary>
public sealed class JinjaTemplate
{
    private const int MaxLength = 1 << 20;

    private readonly Statement[] _body;

    /// <summary>Reads a template.</summary>
    /// <exception cref="TemplateException">The template is not valid, or uses what is not supported; the message says where.</exception>
    public JinjaTemplate(string source)
    {
        ArgumentNullException.ThrowIfNull(source);
        if (source.Length > MaxLength)
        {
            throw new TemplateException($"The template has {source.Length} characters; {MaxLength} are allowed.");
        }

        // As the language has it, one line break at the end belongs to the file.
        _body = new JinjaParser(source.EndsWith('\n') ? source[..^1] : source).Run();
    }

    /// <summary>Fills the template in.</summary>
    /// <param name="variables">Names the template may use: null, bool, numbers, strings, JsonElement, and lists and dictionaries of these.</param>
    /// <param name="time">What strftime_now reads; null: the system's clock.</param>
    /// <param name="cancellationToken">Stops it.</param>
    /// <exception cref="TemplateException">The template refuses the variables (raise_exception), or does something that is not possible or not allowed.</exception>
    public string Render(IEnumerable<KeyValuePair<string, object?>> variables, TimeProvider? time = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(variables);
        return new JinjaInterpreter(variables, time ?? TimeProvider.System, cancellationToken).Run(_body);
    }
}
