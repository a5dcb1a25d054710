namespace LlamaKivi.Templates.Jinja;

/// <summary>Parses expressions with jinja2's precedences.</summary>
/// <remarks>
/// From lowest to highest: if-else, or, and, not, comparisons, + and -, ~, * / // %, **, signs, filters and tests. A sign binds tighter than ** and than a filter.
/// </remarks>
internal abstract class ExpressionParser(string source) : OperandParser(source)
{
    protected override Expression Tuple(bool allowsIf = true, string? end = null, bool inParentheses = false)
    {
        var items = new List<Expression>();
        bool isTuple = false;
        while (!IsTupleEnd(end))
        {
            items.Add(allowsIf ? Expression() : Or());
            if (!TakeOperator(","))
            {
                break;
            }

            isTuple = true;
        }

        return isTuple || (items.Count == 0 && inParentheses) ? new TupleLiteral([.. items]) : items.Count == 1 ? items[0] : throw Fail("an expression is expected");
    }

    protected override Expression Expression()
    {
        Enter();
        int mark = MarkUnknown();
        Expression value = Or();
        while (TakeName("if"))
        {
            Expression condition = Or();
            value = new ConditionalExpression(condition, value, TakeName("else") ? Expression() : null);
            ForgetUnknown(mark);
        }

        Leave();
        return value;
    }

    protected Expression Or()
    {
        Expression left = And();
        while (TakeName("or"))
        {
            left = new LogicalExpression(isAnd: false, left, And());
        }

        return left;
    }

    private bool IsTupleEnd(string? end) => Current.Kind is TokenKind.EndOutput or TokenKind.EndStatement || IsOperator(")") || (end is not null && IsName(end));

    private Expression And()
    {
        Expression left = Not();
        while (TakeName("and"))
        {
            left = new LogicalExpression(isAnd: true, left, Not());
        }

        return left;
    }

    private Expression Not()
    {
        int nots = 0;
        while (TakeName("not"))
        {
            nots++;
        }

        Expression value = Comparison();
        for (; nots > 0; nots--)
        {
            value = new NotExpression(value);
        }

        return value;
    }

    private Expression Comparison()
    {
        Expression first = Sum();
        var links = new List<(string, Expression)>();
        while (true)
        {
            if (Current.Kind == TokenKind.Operator && Current.Text is "==" or "!=" or "<" or ">" or "<=" or ">=")
            {
                string op = Take().Text;
                links.Add((op, Sum()));
            }
            else if (TakeName("in"))
            {
                links.Add(("in", Sum()));
            }
            else if (IsName("not") && Following is { Kind: TokenKind.Name, Text: "in" })
            {
                Take();
                Take();
                links.Add(("not in", Sum()));
            }
            else
            {
                return links.Count == 0 ? first : new ComparisonExpression(first, [.. links]);
            }
        }
    }

    private Expression Sum()
    {
        Expression left = Concatenation();
        while (IsOperator("+") || IsOperator("-"))
        {
            string op = Take().Text;
            left = new BinaryExpression(op, left, Concatenation());
        }

        return left;
    }

    private Expression Concatenation()
    {
        Expression first = Product();
        if (!IsOperator("~"))
        {
            return first;
        }

        var parts = new List<Expression> { first };
        while (TakeOperator("~"))
        {
            parts.Add(Product());
        }

        return new ConcatenationExpression([.. parts]);
    }

    private Expression Product()
    {
        Expression left = Power();
        while (Current.Kind == TokenKind.Operator && Current.Text is "*" or "/" or "//" or "%")
        {
            string op = Take().Text;
            left = new BinaryExpression(op, left, Power());
        }

        return left;
    }

    private Expression Power()
    {
        Expression left = Signed(takesFilters: true);
        while (TakeOperator("**"))
        {
            Expression right = Signed(takesFilters: true);

            // jinja2 compiles a negative constant to Python code, where ** binds tighter. It folds -2 ** 2 itself, to 4.
            left = left is SignExpression { Negated: { } number } && !right.IsConstant
                ? new SignExpression(negates: true, new BinaryExpression("**", number, right))
                : new BinaryExpression("**", left, right);
        }

        return left;
    }

    private Expression Signed(bool takesFilters)
    {
        Expression value;
        if (IsOperator("-") || IsOperator("+"))
        {
            Enter();
            bool negates = Take().Text == "-";
            value = new SignExpression(negates, Signed(takesFilters: false));
            Leave();
        }
        else
        {
            value = Primary();
        }

        value = Postfix(value);
        return takesFilters ? FiltersAndTests(value) : value;
    }
}
