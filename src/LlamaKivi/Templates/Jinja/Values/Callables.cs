namespace LlamaKivi.Templates.Jinja;

/// <summary>Arguments of a call, filter or test.</summary>
internal readonly struct CallArguments(object?[] positional, KeyValuePair<string, object?>[] named)
{
    public static readonly CallArguments None = new([], []);

    public object?[] Positional => positional;

    public KeyValuePair<string, object?>[] Named => named;

    public CallArguments Skip(int count) => new(Positional[Math.Min(count, Positional.Length)..], Named);

    public bool TryGetNamed(string name, out object? value)
    {
        foreach ((string key, object? item) in Named)
        {
            if (key == name)
            {
                value = item;
                return true;
            }
        }

        value = null;
        return false;
    }

    /// <summary>The single positional argument.</summary>
    public object? Single(string function) => Positional.Length == 1 && Named.Length == 0 ? Positional[0] : throw new TemplateException($"{function}() takes one argument.");
}

/// <summary>Parameters of a function: names and default values.</summary>
internal sealed class Signature
{
    private static readonly object Required = new();

    private readonly (string Name, object? Default)[] _parameters;
    private readonly bool _positionalOnly;

    /// <summary>Parses a signature such as "/ sep=None maxsplit=-1". A slash makes the parameters positional-only.</summary>
    public Signature(string parameters)
    {
        string[] parts = parameters.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        _positionalOnly = parts is ["/", ..];
        _parameters = [.. parts.Where(part => part != "/").Select(part => part.Split('=', 2) is [var name, var value] ? (name, Default(value)) : (part, Required))];
    }

    public object?[] Bind(string function, CallArguments arguments)
    {
        if (arguments.Positional.Length > _parameters.Length)
        {
            throw new TemplateException($"{function} takes at most {_parameters.Length} arguments, not {arguments.Positional.Length}.");
        }

        if (arguments.Positional.Length == _parameters.Length && arguments.Named.Length == 0)
        {
            return arguments.Positional;
        }

        object?[] bound = new object?[_parameters.Length];
        arguments.Positional.CopyTo(bound, 0);
        for (int i = arguments.Positional.Length; i < bound.Length; i++)
        {
            bound[i] = _parameters[i].Default;
        }

        foreach ((string name, object? value) in arguments.Named)
        {
            int at = _positionalOnly ? -1 : Array.FindIndex(_parameters, parameter => parameter.Name == name);
            if (at < 0)
            {
                throw new TemplateException($"{function} takes no argument '{name}'.");
            }

            if (at < arguments.Positional.Length)
            {
                throw new TemplateException($"{function} got the argument '{name}' twice.");
            }

            bound[at] = value;
        }

        int missing = Array.FindIndex(bound, value => ReferenceEquals(value, Required));
        return missing < 0 ? bound : throw new TemplateException($"{function} needs the argument '{_parameters[missing].Name}'.");
    }

    private static object? Default(string text) => text switch
    {
        "None" => null,
        "True" => true,
        "False" => false,
        _ when text[0] == '\'' => text[1..^1],
        _ when text.Contains('.', StringComparison.Ordinal) => double.Parse(text, System.Globalization.CultureInfo.InvariantCulture),
        _ => long.Parse(text, System.Globalization.CultureInfo.InvariantCulture),
    };
}

internal delegate object? Body(Rendering rendering, object? self, object?[] arguments);

internal delegate object? OpenBody(Rendering rendering, object? self, CallArguments arguments);

/// <summary>A built-in filter, method or function.</summary>
internal sealed class Operation
{
    private readonly Signature? _signature;
    private readonly Body? _body;
    private readonly OpenBody? _openBody;

    public Operation(string name, string parameters, Body body) => (Name, _signature, _body) = (name, new Signature(parameters), body);

    /// <summary>Creates an operation that accepts any arguments.</summary>
    public Operation(string name, OpenBody body) => (Name, _openBody) = (name, body);

    public string Name { get; }

    public object? Invoke(Rendering rendering, object? self, CallArguments arguments)
    {
        Budget budget = rendering.Budget;
        budget.Step();
        budget.Read(self);
        foreach (object? argument in arguments.Positional)
        {
            budget.Read(argument);
        }

        budget.Enter();  // map takes the name of a filter, which may again be map
        object? result = _body is not null ? _body(rendering, self, _signature!.Bind(Name, arguments)) : _openBody!(rendering, self, arguments);
        budget.Leave();
        return result is string text ? budget.Made(text) : result;
    }
}

/// <summary>A value that templates can call.</summary>
internal abstract class Callable
{
    public abstract string? Name { get; }

    public abstract object? Call(Rendering rendering, CallArguments arguments);
}

/// <summary>A global function.</summary>
internal sealed class Function(Operation operation, string? representation = null) : Callable
{
    public override string Name => operation.Name;

    /// <summary>The text of a function that is a type in Python.</summary>
    public string? Representation => representation;

    public override object? Call(Rendering rendering, CallArguments arguments) => operation.Invoke(rendering, null, arguments);
}

/// <summary>A method of a value.</summary>
internal sealed class BoundMethod(object? self, Operation operation) : Callable
{
    public object? Self => self;

    public Operation Operation => operation;

    public override string Name => operation.Name;

    public override object? Call(Rendering rendering, CallArguments arguments) => operation.Invoke(rendering, self, arguments);
}

/// <summary>Returns its items in turn, one per call of next().</summary>
internal sealed class Cycler(object?[] items)
{
    public object?[] Items => items;

    public int Position { get; set; }

    public object? Current => items[Position];
}

/// <summary>Returns an empty string the first time, then a separator.</summary>
internal sealed class Joiner(object? separator)
{
    public object? Separator => separator;

    public bool IsUsed { get; set; }

    public object? Call()
    {
        object? text = IsUsed ? separator : "";
        IsUsed = true;
        return text;
    }
}
