using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

internal sealed class NotExpression(Expression operand) : Expression
{
    protected override object? Compute(Rendering rendering) => !Types.IsTrue(operand.Evaluate(rendering));
}

internal sealed class SignExpression(bool negates, Expression operand) : Expression(operand.IsConstant)
{
    /// <summary>The value of a negated number literal; null: another operand.</summary>
    public Literal? Negated => negates && operand is Literal literal && Types.IsNumber(literal.Value) ? literal : null;

    protected override object? Compute(Rendering rendering)
    {
        object? value = operand.Evaluate(rendering);
        return !Types.IsNumber(value) ? throw Types.Error(value, $"A {Types.Name(value)} cannot have a sign.")
            : negates ? Arithmetic.Negate(value!) : value is bool flag ? flag ? 1L : 0L : value;
    }
}

/// <summary>and, or: returns the deciding operand.</summary>
internal sealed class LogicalExpression(bool isAnd, Expression left, Expression right) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        object? value = left.Evaluate(rendering);
        return Types.IsTrue(value) == isAnd ? right.Evaluate(rendering) : value;
    }
}

internal sealed class ConditionalExpression(Expression condition, Expression then, Expression? otherwise) : Expression
{
    private static readonly Undefined NoElse = new("An inline 'if' without 'else' was false.");

    protected override object? Compute(Rendering rendering) =>
        Types.IsTrue(condition.Evaluate(rendering)) ? then.Evaluate(rendering) : otherwise is null ? NoElse : otherwise.Evaluate(rendering);
}

/// <summary>a ~ b ~ c: concatenates the texts of values.</summary>
internal sealed class ConcatenationExpression(Expression[] parts) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        object?[] values = Array.ConvertAll(parts, part => part.Evaluate(rendering));
        bool escapes = rendering.Autoescape && Array.Exists(values, value => value is Markup);
        string[] texts = Array.ConvertAll(values, value => escapes && value is not Markup ? HtmlText.Escape(rendering.Budget, rendering.Str(value)) : rendering.Str(value));
        Budget.Room(texts.Sum(text => (long)text.Length));
        string joined = rendering.Budget.Made(string.Concat(texts));
        return escapes ? new Markup(joined) : joined;
    }
}

/// <summary>a &lt; b == c: every pair holds, and each operand is evaluated once.</summary>
internal sealed class ComparisonExpression(Expression first, (string Operator, Expression Operand)[] links) : Expression
{
    protected override object? Compute(Rendering rendering)
    {
        object? left = first.Evaluate(rendering);
        foreach ((string op, Expression operand) in links)
        {
            object? right = operand.Evaluate(rendering);
            if (!Holds(rendering.Budget, op, left, right))
            {
                return false;
            }

            left = right;
        }

        return true;
    }

    private static bool Holds(Budget budget, string op, object? a, object? b) => op switch
    {
        "==" => Equality.AreEqual(budget, a, b),
        "!=" => !Equality.AreEqual(budget, a, b),
        "<" => Ordering.Holds(budget, Comparison.Less, a, b),
        "<=" => Ordering.Holds(budget, Comparison.LessOrEqual, a, b),
        ">" => Ordering.Holds(budget, Comparison.Greater, a, b),
        ">=" => Ordering.Holds(budget, Comparison.GreaterOrEqual, a, b),
        "in" => Iteration.Contains(budget, b, a),
        _ => !Iteration.Contains(budget, b, a),
    };
}

/// <summary>+ - * / // % ** of two values.</summary>
internal sealed class BinaryExpression(string op, Expression left, Expression right) : Expression(left.IsConstant && right.IsConstant)
{
    protected override object? Compute(Rendering rendering)
    {
        object? a = left.Evaluate(rendering);
        return Apply(rendering, op, a, right.Evaluate(rendering));
    }

    public static object? Apply(Rendering rendering, string op, object? a, object? b)
    {
        Budget budget = rendering.Budget;
        if (Types.IsNumber(a) && Types.IsNumber(b))
        {
            return op switch
            {
                "+" => Arithmetic.Add(budget, a!, b!),
                "-" => Arithmetic.Subtract(budget, a!, b!),
                "*" => Arithmetic.Multiply(budget, a!, b!),
                "/" => Arithmetic.Divide(a!, b!),
                "//" => Arithmetic.FloorDivide(budget, a!, b!),
                "%" => Arithmetic.Modulo(budget, a!, b!),
                _ => Arithmetic.Power(budget, a!, b!),
            };
        }

        switch (op)
        {
            case "+" when a is string x && b is string y:
                Budget.Room((long)x.Length + y.Length);
                return budget.Made(x + y);
            case "+" when a is string or Markup && b is string or Markup:
                return new Markup(budget.Made(HtmlText.EscapedOf(budget, a) + HtmlText.EscapedOf(budget, b)));
            case "+" when a is JinjaList x && b is JinjaList y:
                budget.Items((long)x.Items.Count + y.Items.Count);
                return new JinjaList([.. x.Items, .. y.Items]);
            case "+" when a is PyTuple x && b is PyTuple y:
                budget.Items((long)x.Items.Length + y.Items.Length);
                return new PyTuple([.. x.Items, .. y.Items]);
            case "*" when Types.IsInteger(b) && IsRepeatable(a):
                return Repeated(budget, a!, b!);
            case "*" when Types.IsInteger(a) && IsRepeatable(b):
                return Repeated(budget, b!, a!);
            case "%" when a is string format:
                return PercentFormat.Apply(rendering, format, b);
            case "%" when a is Markup format:
                return new Markup(PercentFormat.Apply(rendering, format.Text, HtmlText.EscapedValues(rendering, b)));
        }

        throw Types.Error(a is Undefined ? a : b, $"'{op}' is not supported between {Types.Name(a)} and {Types.Name(b)}.");
    }

    private static bool IsRepeatable(object? value) => value is string or Markup or JinjaList or PyTuple;

    private static object Repeated(Budget budget, object value, object count)
    {
        if (count is BigInteger)
        {
            throw new TemplateException("The count of a repetition is too large.");
        }

        long times = Arithmetic.Clamped(count, "A count");
        times = Math.Clamp(times, 0, Budget.MaxCharacters + 1L);
        if (Types.Str(value) is { } text)
        {
            Budget.Room(text.Length * times);
            string repeated = budget.Made(text.Length switch
            {
                0 => "",
                1 => new string(text[0], (int)times),
                _ => string.Concat(Enumerable.Repeat(text, (int)times)),
            });
            return value is Markup ? new Markup(repeated) : repeated;
        }

        IList<object?> items = value is JinjaList list ? list.Items : ((PyTuple)value).Items;
        budget.Items(items.Count * times);
        IEnumerable<object?> all = Enumerable.Repeat(items, items.Count == 0 ? 0 : (int)times).SelectMany(part => part);
        return value is JinjaList ? new JinjaList([.. all]) : new PyTuple([.. all]);
    }
}
