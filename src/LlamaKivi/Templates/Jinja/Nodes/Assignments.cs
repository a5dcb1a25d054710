namespace LlamaKivi.Templates.Jinja;

/// <summary>Target of an assignment: a name, an attribute of a namespace, or several of these.</summary>
internal abstract class Target
{
    public abstract void Assign(Rendering rendering, Scope scope, object? value);

    /// <summary>Whether the target contains a name.</summary>
    public virtual bool Names(string name) => false;

    /// <summary>Rejects an attribute of a value other than a namespace, before the assigned value is evaluated.</summary>
    public virtual void Check(Rendering rendering)
    {
    }
}

internal sealed class NameTarget(string name) : Target
{
    public override bool Names(string other) => name == other;

    public override void Assign(Rendering rendering, Scope scope, object? value) => scope.Set(name, value);
}

internal sealed class NamespaceTarget(string name, string attribute) : Target
{
    public override void Check(Rendering rendering) => Namespace(rendering);

    public override void Assign(Rendering rendering, Scope scope, object? value)
    {
        rendering.Budget.Items(1);
        Namespace(rendering).Attributes[attribute] = value;
    }

    private PyNamespace Namespace(Rendering rendering) => rendering.Scope.TryGet(name, out object? space) && space is PyNamespace found ? found
        : throw new TemplateException($"'{name}' is not a namespace, so '{name}.{attribute}' cannot be set.");
}

internal sealed class TupleTarget(Target[] targets) : Target
{
    public override bool Names(string name) => Array.Exists(targets, target => target.Names(name));

    public override void Check(Rendering rendering)
    {
        foreach (Target target in targets)
        {
            target.Check(rendering);
        }
    }

    public override void Assign(Rendering rendering, Scope scope, object? value)
    {
        object?[] parts;
        if (value is PyTuple tuple)
        {
            parts = tuple.Items;
        }
        else
        {
            parts = [.. Iteration.Of(rendering.Budget, value).Take(targets.Length + 1)];
        }

        if (parts.Length != targets.Length)
        {
            throw new TemplateException($"{(parts.Length > targets.Length ? $"More than {targets.Length}" : parts.Length)} values cannot be assigned to {targets.Length} names.");
        }

        for (int i = 0; i < parts.Length; i++)
        {
            targets[i].Assign(rendering, scope, parts[i]);
        }
    }
}

internal sealed class SetStatement(Target target, Expression value) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        target.Check(rendering);
        target.Assign(rendering, rendering.Scope, value.Evaluate(rendering));
        return Flow.Next;
    }
}

/// <summary>set with a body: assigns the body's output, after filters.</summary>
internal sealed class SetBlockStatement(Target target, FilterExpression? filter, Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        target.Check(rendering);
        var inner = new Scope(rendering.Scope);
        string text = rendering.Capture(body, inner, out Flow flow);
        if (flow != Flow.Next)
        {
            return flow;
        }

        object? value = rendering.Captured(text);
        if (filter is not null)
        {
            Scope outer = rendering.Scope;
            rendering.Scope = inner;
            value = filter.ApplyChain(rendering, value);
            rendering.Scope = outer;
            value = rendering.Autoescape && value is not Markup ? new Markup(rendering.Str(value)) : value;
        }

        target.Assign(rendering, rendering.Scope, value);
        return Flow.Next;
    }
}

internal sealed class WithStatement((Target Target, Expression Value)[] assignments, Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        Scope outer = rendering.Scope;
        var inner = new Scope(outer);
        foreach ((Target target, Expression value) in assignments)
        {
            target.Assign(rendering, inner, value.Evaluate(rendering));
        }

        rendering.Scope = inner;
        Flow flow = rendering.Execute(body);
        rendering.Scope = outer;
        return flow;
    }
}
