namespace LlamaKivi.Templates.Jinja;

/// <summary>The value of a name or member that does not exist: false and empty; an error where a value is needed.</summary>
internal sealed class Undefined
{
    private readonly string? _message;
    private readonly object? _owner;
    private readonly object? _key;

    public Undefined(string message) => _message = message;

    private Undefined(object? owner, object? key) => (_owner, _key) = (owner, key);

    public static Undefined Name(string name) => new($"'{name}' is undefined.");

    public static Undefined Member(object? owner, object? key) => new(owner, key);

    /// <summary>A member that exists in Python, but not in jinja2's sandbox.</summary>
    public static Undefined Unsafe(object? owner, string name) => new($"The attribute '{name}' of a {Types.Name(owner)} is not accessible to templates.");

    public string Message => _message ?? $"A {Types.Name(_owner)} has no {(_key is string name ? $"attribute '{name}'" : $"item {Short(_key)}")}.";

    public TemplateException Error() => new(Message);

    private static string Short(object? key) => key is null or bool or long or double ? Representation.Plain(key) : $"for a {Types.Name(key)}";
}
