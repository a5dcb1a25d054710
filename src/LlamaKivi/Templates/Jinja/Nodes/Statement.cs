namespace LlamaKivi.Templates.Jinja;

/// <summary>Effect of a statement on the enclosing loop.</summary>
internal enum Flow
{
    Next,
    Break,
    Continue,
}

internal abstract class Statement
{
    /// <summary>Line of the statement.</summary>
    public int Line { get; init; }

    public abstract Flow Execute(Rendering rendering);
}

/// <summary>Literal text of the template.</summary>
internal sealed class DataStatement(string text) : Statement
{
    public string Text => text;

    public override Flow Execute(Rendering rendering)
    {
        rendering.Output.Append(text);
        return Flow.Next;
    }
}

internal sealed class OutputStatement(Expression[] values) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        foreach (Expression value in values)
        {
            rendering.IsConstantOutput = value.IsConstant;
            object? written = value.Evaluate(rendering);
            rendering.IsConstantOutput = false;
            rendering.Write(written);
        }

        return Flow.Next;
    }
}

internal sealed class IfStatement((Expression Condition, Statement[] Body)[] branches, Statement[] otherwise) : Statement
{
    public override Flow Execute(Rendering rendering)
    {
        foreach ((Expression condition, Statement[] body) in branches)
        {
            if (Types.IsTrue(condition.Evaluate(rendering)))
            {
                return rendering.Execute(body);
            }
        }

        return rendering.Execute(otherwise);
    }
}

internal sealed class LoopControl(bool ends) : Statement
{
    public override Flow Execute(Rendering rendering) => ends ? Flow.Break : Flow.Continue;
}

/// <summary>include, import, from and extends: always an error, because there are no other templates.</summary>
internal sealed class OtherTemplateStatement(string tag) : Statement
{
    public override Flow Execute(Rendering rendering) => throw new TemplateException($"'{tag}' is not supported: a chat template cannot use other templates.");
}
