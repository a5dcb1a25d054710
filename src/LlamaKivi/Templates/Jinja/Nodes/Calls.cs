namespace LlamaKivi.Templates.Jinja;

/// <summary>Arguments of a call: a, b, name=c, *items, **named.</summary>
internal sealed class ArgumentList(Expression[] positional, (string Name, Expression Value)[] named, Expression? items, Expression? mapping)
{
    public static readonly ArgumentList None = new([], [], null, null);

    public bool IsEmpty { get; } = positional.Length + named.Length == 0 && items is null && mapping is null;

    /// <summary>Evaluates the arguments and pays for the call's result.</summary>
    public CallArguments Evaluate(Rendering rendering, object? caller = null)
    {
        rendering.Budget.Call();
        if (IsEmpty && caller is null)
        {
            return CallArguments.None;
        }

        object?[] values = positional.Length == 0 ? [] : Array.ConvertAll(positional, value => value.Evaluate(rendering));
        if (items is not null)
        {
            values = [.. values, .. Iteration.ToList(rendering.Budget, items.Evaluate(rendering))];
        }

        if (named.Length == 0 && mapping is null && caller is null)
        {
            return new CallArguments(values, []);
        }

        var names = new List<KeyValuePair<string, object?>>();
        foreach ((string name, Expression value) in named)
        {
            names.Add(KeyValuePair.Create(name, value.Evaluate(rendering)));
        }

        if (caller is not null)
        {
            Add(names, "caller", caller);
        }

        if (mapping is not null)
        {
            object? given = mapping.Evaluate(rendering);
            foreach ((object? key, object? value) in (given as JinjaDict ?? throw Types.Error(given, $"** takes a dictionary, not a {Types.Name(given)}.")).Items)
            {
                rendering.Budget.Items(1);
                Add(names, Types.Str(key) ?? throw new TemplateException("The keys of ** must be strings."), value);
            }
        }

        return new CallArguments(values, [.. names]);
    }

    private static void Add(List<KeyValuePair<string, object?>> names, string name, object? value)
    {
        if (names.Exists(item => item.Key == name))
        {
            throw new TemplateException($"The argument '{name}' is given twice.");
        }

        names.Add(KeyValuePair.Create(name, value));
    }
}

internal sealed class CallExpression(Expression target, ArgumentList arguments) : Expression
{
    protected override object? Compute(Rendering rendering) => Call(rendering, null);

    /// <summary>A call, optionally with the body of a call block as an argument.</summary>
    public object? Call(Rendering rendering, object? caller)
    {
        // Calls a method without allocating an object for it.
        if (target is AttributeAccess access)
        {
            object? self = access.Target.Evaluate(rendering);
            return self is string or JinjaDict or JinjaList && Methods.Find(self, access.Name) is { } method
                ? method.Invoke(rendering, self, arguments.Evaluate(rendering, caller))
                : CallOf.Value(rendering, Members.GetAttribute(rendering, self, access.Name), arguments.Evaluate(rendering, caller));
        }

        object? function = target.Evaluate(rendering);
        return CallOf.Value(rendering, function, arguments.Evaluate(rendering, caller));
    }
}

/// <summary>value | name(arguments).</summary>
/// <param name="target">The value; null: the output of the filtered block.</param>
/// <param name="name">The filter's name.</param>
/// <param name="operation">The filter; null: unknown, which is an error when evaluated.</param>
/// <param name="arguments">Arguments.</param>
internal sealed class FilterExpression(Expression? target, string name, Operation? operation, ArgumentList arguments) : Expression(target?.IsConstant == true && arguments.IsEmpty)
{
    protected override object? Compute(Rendering rendering) => Apply(rendering, target?.Evaluate(rendering));

    /// <summary>Filters the output of a block through a chain whose innermost filter has no target.</summary>
    public object? ApplyChain(Rendering rendering, object? value)
    {
        rendering.Budget.Enter();
        object? filtered = Apply(rendering, target is FilterExpression inner ? inner.ApplyChain(rendering, value) : value);
        rendering.Budget.Leave();
        return filtered;
    }

    private object? Apply(Rendering rendering, object? value) =>
        (operation ?? throw new TemplateException($"There is no filter '{name}'.")).Invoke(rendering, value, arguments.Evaluate(rendering));
}

/// <summary>value is name(arguments).</summary>
internal sealed class TestExpression(Expression target, string name, Test? test, ArgumentList arguments) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        object? value = target.Evaluate(rendering);
        return (test ?? throw new TemplateException($"There is no test '{name}'.")).Holds(rendering, value, arguments.Evaluate(rendering));
    }
}
