namespace LlamaKivi.Templates;

internal abstract record Expression;

internal sealed record Literal(object? Value) : Expression;

internal sealed record Variable(string Name) : Expression;

internal sealed record ListLiteral(Expression[] Items) : Expression;

internal sealed record DictLiteral((Expression Key, Expression Value)[] Items) : Expression;

internal sealed record Member(Expression Target, Expression Key, bool IsAttribute) : Expression;

internal sealed record Slice(Expression Target, Expression? Start, Expression? Stop, Expression? Step) : Expression;

internal sealed record Call(Expression Target, Arguments Arguments) : Expression;

internal sealed record Filter(Expression Target, string Name, Arguments Arguments) : Expression;

internal sealed record Test(Expression Target, string Name, Arguments Arguments, bool Negated) : Expression;

internal sealed record Unary(string Operator, Expression Operand) : Expression;

internal sealed record Binary(string Operator, Expression Left, Expression Right) : Expression;

internal sealed record Conditional(Expression Condition, Expression Then, Expression? Else) : Expression;

internal sealed record Arguments(Expression[] Positional, (string Name, Expression Value)[] Named)
{
    public static readonly Arguments None = new([], []);
}

internal abstract record Statement
{
    /// <summary>Where it begins.</summary>
    public int Line { get; init; }
}

internal sealed record TextStatement(string Text) : Statement;

internal sealed record OutputStatement(Expression Value) : Statement;

internal sealed record IfStatement((Expression Condition, Statement[] Body)[] Branches, Statement[] Else) : Statement;

internal sealed record ForStatement(string[] Names, Expression Sequence, Expression? Condition, Statement[] Body, Statement[] Else) : Statement;

internal sealed record SetStatement(string[] Names, string? Attribute, Expression? Value, Statement[] Body) : Statement;

internal sealed record MacroStatement(string Name, (string Name, Expression? Default)[] Parameters, Statement[] Body) : Statement;

internal sealed record CallStatement(Expression Target, Statement[] Body) : Statement;

internal sealed record FilterStatement(string Name, Arguments Arguments, Statement[] Body) : Statement;

internal sealed record BlockStatement(Statement[] Body) : Statement;

internal sealed record LoopControl(bool Ends) : Statement;
