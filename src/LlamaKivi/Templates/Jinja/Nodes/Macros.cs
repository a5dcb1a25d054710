namespace LlamaKivi.Templates.Jinja;

/// <summary>Parameters of a macro or call block, and the special names that its body reads.</summary>
internal sealed class MacroDefinition(string? name, (string Name, Expression? Default)[] parameters)
{
    public string? Name => name;

    public (string Name, Expression? Default)[] Parameters => parameters;

    /// <summary>Whether the body reads caller without declaring it as a parameter.</summary>
    public bool ReadsCaller { get; set; }

    /// <summary>Whether caller is a parameter.</summary>
    public bool NamesCaller { get; } = Array.Exists(parameters, parameter => parameter.Name == "caller");

    public bool ReadsKeywords { get; set; }

    public bool ReadsPositional { get; set; }
}

internal sealed class MacroStatement(MacroDefinition definition, Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        rendering.Scope.Set(definition.Name!, new Macro(definition, body, rendering.Scope));
        return Flow.Next;
    }
}

internal sealed class CallStatement(MacroDefinition definition, CallExpression call, Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        rendering.WriteText(call.Call(rendering, new Macro(definition, body, rendering.Scope)));
        return Flow.Next;
    }
}

/// <summary>A macro, or the body of a call block. It sees the scope of its definition, not that of its call.</summary>
internal sealed class Macro(MacroDefinition definition, Statement[] body, Scope around) : Callable
{
    public override string? Name => definition.Name;

    public override object? Call(Rendering rendering, CallArguments arguments)
    {
        var scope = new Scope(around);
        (string Name, Expression? Default)[] parameters = definition.Parameters;
        object?[] positional = arguments.Positional;
        var named = new List<KeyValuePair<string, object?>>(arguments.Named);
        bool callerGiven = positional.Length >= parameters.Length && definition.NamesCaller;
        rendering.Budget.EnterCall();
        Scope outer = rendering.Scope;
        for (int i = 0; i < parameters.Length; i++)
        {
            (string name, Expression? fallback) = parameters[i];
            int at = i < positional.Length ? -1 : named.FindIndex(item => item.Key == name);
            callerGiven |= i >= positional.Length && name == "caller";
            if (i < positional.Length)
            {
                scope.Set(name, positional[i]);
            }
            else if (at >= 0)
            {
                scope.Set(name, named[at].Value);
                named.RemoveAt(at);
            }
            else
            {
                rendering.Scope = scope;  // default values may use preceding parameters
                scope.Set(name, fallback is null ? new Undefined($"The parameter '{name}' of the macro '{Name}' is not given.") : fallback.Evaluate(rendering));
            }
        }

        rendering.Scope = outer;
        if (definition.ReadsCaller && !callerGiven)
        {
            int at = named.FindIndex(item => item.Key == "caller");
            object? caller = at < 0 ? null : named[at].Value;
            scope.Set("caller", caller ?? new Undefined($"The macro '{Name}' was not called by a call block: there is no caller."));
            if (at >= 0)
            {
                named.RemoveAt(at);
            }
        }

        SetRest(rendering, scope, positional, named);
        string text = rendering.Capture(body, scope, out _);
        rendering.Budget.LeaveCall();
        return rendering.Captured(text);
    }

    public bool TryGetAttribute(string name, out object? value)
    {
        value = name switch
        {
            "name" => definition.Name,
            "arguments" => new PyTuple([.. definition.Parameters.Select(parameter => parameter.Name)]),
            "catch_kwargs" => definition.ReadsKeywords,
            "catch_varargs" => definition.ReadsPositional,
            "caller" => definition.ReadsCaller,
            _ => this,
        };
        return !ReferenceEquals(value, this);
    }

    private void SetRest(Rendering rendering, Scope scope, object?[] positional, List<KeyValuePair<string, object?>> named)
    {
        int count = definition.Parameters.Length;
        if (definition.ReadsKeywords)
        {
            var rest = new JinjaDict(rendering.Budget);
            foreach ((string name, object? value) in named)
            {
                rest[name] = value;
            }

            scope.Set("kwargs", rest);
        }
        else if (named.Count > 0)
        {
            throw new TemplateException($"The macro '{Name}' takes no argument '{named[0].Key}'.");
        }

        if (definition.ReadsPositional)
        {
            scope.Set("varargs", new PyTuple(positional.Length > count ? positional[count..] : []));
        }
        else if (positional.Length > count)
        {
            throw new TemplateException($"The macro '{Name}' takes at most {count} arguments, not {positional.Length}.");
        }
    }
}
