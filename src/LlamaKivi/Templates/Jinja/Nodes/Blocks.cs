namespace LlamaKivi.Templates.Jinja;

/// <summary>A named block. It sees the template's top-level variables, not those of the enclosing scopes.</summary>
internal sealed class BlockStatement : Statement
{
    private readonly bool _isScoped;
    private readonly bool _isRequired;
    private readonly Statement[] _body;

    public BlockStatement(string name, bool isScoped, bool isRequired, Statement[] body)
    {
        (_isScoped, _isRequired, _body) = (isScoped, isRequired, body);
        Name = name;
        Operation = new Operation(name, "", (rendering, _, _) => Text(rendering, rendering.Root));
    }

    public string Name { get; }

    /// <summary>The value of self.name, which renders the block when called.</summary>
    public Operation Operation { get; }

    public override Flow Execute(Rendering rendering)
    {
        if (_isRequired)
        {
            throw new TemplateException($"The required block '{Name}' has no content: chat templates have no child templates.");
        }

        rendering.Output.Append(rendering.Str(Text(rendering, _isScoped ? rendering.Scope : rendering.Root)));
        return Flow.Next;
    }

    private object Text(Rendering rendering, Scope around)
    {
        rendering.Budget.EnterCall();
        string text = rendering.Capture(_body, new Scope(around), out _);
        rendering.Budget.LeaveCall();
        return rendering.Captured(text);
    }
}

/// <summary>filter: writes the body's output, after filters.</summary>
internal sealed class FilterStatement(FilterExpression filter, Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        Scope outer = rendering.Scope;
        var inner = new Scope(outer);
        string text = rendering.Capture(body, inner, out Flow flow);
        if (flow != Flow.Next)
        {
            return flow;
        }

        rendering.Scope = inner;
        object? value = filter.ApplyChain(rendering, rendering.Captured(text));
        rendering.Scope = outer;
        rendering.WriteText(value);
        return Flow.Next;
    }
}

/// <summary>generation: marks the assistant's text, from which transformers builds a mask. Variables set inside are local.</summary>
internal sealed class GenerationStatement(Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        Scope outer = rendering.Scope;
        rendering.Scope = new Scope(outer);
        Flow flow = rendering.Execute(body);
        rendering.Scope = outer;
        return flow;
    }
}

/// <summary>autoescape: turns HTML escaping of outputs on or off.</summary>
internal sealed class AutoescapeStatement(Expression isOn, Statement[] body) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        bool before = rendering.Autoescape;
        Scope outer = rendering.Scope;
        rendering.Autoescape = Types.IsTrue(isOn.Evaluate(rendering));
        rendering.Scope = new Scope(outer);
        Flow flow = rendering.Execute(body);
        rendering.Scope = outer;
        rendering.Autoescape = before;
        return flow;
    }
}
