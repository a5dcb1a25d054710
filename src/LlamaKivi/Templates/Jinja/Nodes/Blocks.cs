namespace LlamaKivi.Templates.Jinja;

/// <summary>A named block. It sees the names of the template's top, not those around it.</summary>
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

    /// <summary>What self.name() calls.</summary>
    public Operation Operation { get; }

    public override Flow Execute(Rendering rendering)
    {
        if (_isRequired)
        {
            throw new TemplateException($"The required block '{Name}' was not filled by another template.");
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

/// <summary>filter: the text that the body writes, through filters.</summary>
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

/// <summary>generation: the assistant's text, of which transformers makes a mask. Names that are set inside stay inside.</summary>
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

/// <summary>autoescape: what is written is escaped as HTML, or is not.</summary>
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
