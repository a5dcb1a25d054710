namespace LlamaKivi.Templates.Jinja;

/// <summary>An expression.</summary>
internal abstract class Expression(bool isConstant = false)
{
    /// <summary>Whether the value is constant. Cached, because trees may be deep.</summary>
    public bool IsConstant => isConstant;

    public virtual object? Evaluate(Rendering rendering)
    {
        Budget budget = rendering.Budget;
        budget.Step();
        budget.Enter();
        object? value = Compute(rendering);
        budget.Leave();
        return value;
    }

    protected abstract object? Compute(Rendering rendering);
}

internal sealed class Literal(object? value) : Expression(isConstant: true)
{
    public object? Value => value;

    public override object? Evaluate(Rendering rendering) => value;

    protected override object? Compute(Rendering rendering) => value;
}

internal sealed class Name(string name) : Expression
{
    private readonly Undefined _undefined = Undefined.Name(name);

    public string Text => name;

    public override object? Evaluate(Rendering rendering)
    {
        rendering.Budget.Step();
        return rendering.Scope.TryGet(name, out object? value) ? value : _undefined;
    }

    protected override object? Compute(Rendering rendering) => Evaluate(rendering);
}

internal sealed class ListLiteral(Expression[] items) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        rendering.Budget.List(items.Length);
        var list = new List<object?>(items.Length);
        foreach (Expression item in items)
        {
            list.Add(item.Evaluate(rendering));
        }

        return new JinjaList(list);
    }
}

internal sealed class TupleLiteral(Expression[] items) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        rendering.Budget.List(items.Length);
        return items.Length == 0 ? PyTuple.Empty : new PyTuple(Array.ConvertAll(items, item => item.Evaluate(rendering)));
    }
}

internal sealed class DictLiteral((Expression Key, Expression Value)[] items) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        rendering.Budget.Dict(items.Length);
        var dict = new JinjaDict(rendering.Budget);
        foreach ((Expression key, Expression value) in items)
        {
            object? name = key.Evaluate(rendering);
            dict[name] = value.Evaluate(rendering);
        }

        return dict;
    }
}

internal sealed class AttributeAccess(Expression target, string name) : Expression
{
    public Expression Target => target;

    public string Name => name;

    protected override object? Compute(Rendering rendering) => Members.GetAttribute(rendering, target.Evaluate(rendering), name);
}

internal sealed class ItemAccess(Expression target, Expression key) : Expression(target.IsConstant && key.IsConstant)
{
    protected override object? Compute(Rendering rendering)
    {
        object? value = target.Evaluate(rendering);
        object? at = key.Evaluate(rendering);
        if (key is not SliceLiteral)
        {
            return Members.GetItem(rendering, value, at);
        }

        try
        {
            return Members.GetSlice(rendering, value, (PySlice)at!);
        }
        catch (TemplateException) when (rendering.IsConstantOutput)
        {
            return Undefined.Member(value, at);  // jinja2 folds constant outputs at compile time, where a failing slice is undefined
        }
    }
}

/// <summary>start:stop:step in a subscript.</summary>
internal sealed class SliceLiteral(Expression? start, Expression? stop, Expression? step)
    : Expression(start?.IsConstant != false && stop?.IsConstant != false && step?.IsConstant != false)
{
    protected override object? Compute(Rendering rendering) => new PySlice(start?.Evaluate(rendering), stop?.Evaluate(rendering), step?.Evaluate(rendering));
}
