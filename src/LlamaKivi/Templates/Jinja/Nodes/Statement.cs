namespace LlamaKivi.Templates.Jinja;

/// <summary>What a statement does to the loop around it.</summary>
internal enum Flow
{
    Next,
    Break,
    Continue,
}

internal abstract class Statement
{
    /// <summary>Where it begins.</summary>
    public int Line { get; init; }

    public abstract Flow Execute(Rendering rendering);
}

/// <summary>Text of the template.</summary>
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

/// <summary>include, import, from and extends: there are no other templates.</summary>
internal sealed class OtherTemplateStatement(string tag) : Statement
{
    public override Flow Execute(Rendering rendering) => throw new TemplateException($"'{tag}' needs another template, and a chat template stands alone.");
}
