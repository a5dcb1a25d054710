namespace LlamaKivi.Templates.Jinja;

/// <summary>Parses operands: literals and names, with the members, calls, filters and tests that follow them.</summary>
internal abstract class OperandParser(string source) : TokenReader(source, "loop", "caller", "varargs", "kwargs", "self")
{
    // Macros whose bodies are being parsed, to record which special names they read.
    private readonly Stack<SpecialNames> _macros = new();

    // Unknown filters and tests. Inside an if they are errors only when evaluated, elsewhere when parsed.
    private readonly List<(string What, int Position)> _unknown = [];

    /// <summary>Special names that are defined in a macro only if its body reads them.</summary>
    protected sealed class SpecialNames
    {
        private readonly HashSet<string> _read = new(StringComparer.Ordinal);
        private readonly HashSet<string> _stored = new(StringComparer.Ordinal);

        public bool Reads(string name) => _read.Contains(name);

        public void Read(string name)
        {
            if (!_stored.Contains(name))
            {
                _read.Add(name);
            }
        }

        public void Store(string name) => _stored.Add(name);
    }

    protected void EnterMacro() => _macros.Push(new SpecialNames());

    protected SpecialNames LeaveMacro() => _macros.Pop();

    protected void Stored(string name)
    {
        foreach (SpecialNames macro in _macros)
        {
            macro.Store(name);
        }
    }

    /// <summary>Marks the current end of the list of unknown filters and tests.</summary>
    protected int MarkUnknown() => _unknown.Count;

    /// <summary>Removes the unknown filters and tests of an if, but keeps those in the bodies of statements inside it.</summary>
    protected void ForgetUnknown(int mark) => _unknown.RemoveRange(mark, _unknown.Count - mark);

    protected List<(string What, int Position)> TakeUnknown(int mark)
    {
        List<(string, int)> taken = _unknown[mark..];
        ForgetUnknown(mark);
        return taken;
    }

    /// <summary>Parses an expression, or several as a tuple: 1, 2.</summary>
    /// <param name="allowsIf">Whether a following if is part of the expression.</param>
    /// <param name="end">A keyword that may follow a trailing comma.</param>
    /// <param name="inParentheses">Whether no expression means the empty tuple.</param>
    protected abstract Expression Tuple(bool allowsIf = true, string? end = null, bool inParentheses = false);

    protected abstract Expression Expression();

    /// <summary>Parses the filters of a block; the first one has no bar.</summary>
    protected FilterExpression FilterChain()
    {
        FilterExpression chain = Filter(null);
        while (TakeOperator("|"))
        {
            chain = Filter(chain);
        }

        return chain;
    }

    protected Expression Postfix(Expression value)
    {
        while (true)
        {
            if (TakeOperator("."))
            {
                value = Current.Kind == TokenKind.Number && Current.Value is not double ? new ItemAccess(value, new Literal(Take().Value)) : new AttributeAccess(value, ExpectName());
            }
            else if (TakeOperator("["))
            {
                value = new ItemAccess(value, Subscript());
            }
            else if (IsOperator("("))
            {
                value = new CallExpression(value, Arguments());
            }
            else
            {
                return value;
            }
        }
    }

    protected Expression FiltersAndTests(Expression value)
    {
        while (true)
        {
            if (TakeOperator("|"))
            {
                value = Filter(value);
            }
            else if (TakeName("is"))
            {
                value = Test(value);
            }
            else if (IsOperator("("))
            {
                value = new CallExpression(value, Arguments());
            }
            else
            {
                return value;
            }
        }
    }

    private FilterExpression Filter(Expression? value)
    {
        int position = Current.Position;
        string name = DottedName();
        Operation? filter = Filters.Find(name);
        if (filter is null)
        {
            _unknown.Add(($"there is no filter '{name}'", position));
        }

        return new FilterExpression(value, name, filter, IsOperator("(") ? Arguments() : ArgumentList.None);
    }

    private Expression Test(Expression value)
    {
        bool negated = TakeName("not");
        int position = Current.Position;
        string name = DottedName();
        Test? test = Tests.Find(name);
        if (test is null)
        {
            _unknown.Add(($"there is no test '{name}'", position));
        }

        ArgumentList arguments = IsOperator("(") ? Arguments() : StartsArgument() ? new ArgumentList([Postfix(Primary())], [], null, null) : ArgumentList.None;
        Expression tested = new TestExpression(value, name, test, arguments);
        return negated ? new NotExpression(tested) : tested;
    }

    // `x is divisibleby 3`
    private bool StartsArgument()
    {
        if (IsName("is"))
        {
            throw Fail("a test cannot follow a test");
        }

        return Current.Kind is TokenKind.String or TokenKind.Number || IsOperator("[") || IsOperator("{") || (Current.Kind == TokenKind.Name && Current.Text is not ("else" or "or" or "and"));
    }

    private string DottedName()
    {
        string name = ExpectName();
        while (TakeOperator("."))
        {
            name += "." + ExpectName();
        }

        return name;
    }

    private Expression Subscript()
    {
        var keys = new List<Expression>();
        while (!IsOperator("]"))
        {
            if (keys.Count > 0)
            {
                ExpectOperator(",");
            }

            keys.Add(SubscriptPart());
        }

        ExpectOperator("]");
        return keys.Count == 1 ? keys[0] : new TupleLiteral([.. keys]);
    }

    private Expression SubscriptPart()
    {
        Expression? start = IsOperator(":") ? null : Expression();
        if (!TakeOperator(":"))
        {
            return start!;
        }

        bool Ends() => IsOperator(":") || IsOperator("]") || IsOperator(",");
        Expression? stop = Ends() ? null : Expression();
        Expression? step = TakeOperator(":") && !Ends() ? Expression() : null;
        return new SliceLiteral(start, stop, step);
    }

    private ArgumentList Arguments()
    {
        int position = Current.Position;
        ExpectOperator("(");
        var positional = new List<Expression>();
        var named = new List<(string Name, Expression Value)>();
        Expression? items = null;
        Expression? mapping = null;
        void Ensure(bool valid)
        {
            if (!valid)
            {
                throw Fail("a positional argument follows a named one", position);
            }
        }

        while (!IsOperator(")"))
        {
            if (TakeOperator("*"))
            {
                Ensure(items is null && mapping is null);
                items = Expression();
            }
            else if (TakeOperator("**"))
            {
                Ensure(mapping is null);
                mapping = Expression();
            }
            else if (Current.Kind == TokenKind.Name && Following is { Kind: TokenKind.Operator, Text: "=" })
            {
                Ensure(mapping is null);
                string name = ExpectName();
                Take();
                if (named.Exists(item => item.Name == name))
                {
                    throw Fail($"the argument '{name}' is given twice");
                }

                named.Add((name, Expression()));
            }
            else
            {
                Ensure(items is null && mapping is null && named.Count == 0);
                positional.Add(Expression());
            }

            if (!TakeOperator(","))
            {
                break;
            }
        }

        ExpectOperator(")");
        return new ArgumentList([.. positional], [.. named], items, mapping);
    }

    protected Expression Primary()
    {
        Token token = Current;
        switch (token.Kind)
        {
            case TokenKind.Name:
                return NameOrConstant(ExpectName());
            case TokenKind.String:
                var text = new System.Text.StringBuilder();
                while (Current.Kind == TokenKind.String)
                {
                    text.Append(Take().Text);  // adjacent strings are concatenated
                }

                return new Literal(text.ToString());
            case TokenKind.Number:
                return new Literal(Take().Value);
        }

        if (TakeOperator("("))
        {
            Enter();
            Expression value = Tuple(inParentheses: true);
            Leave();
            ExpectOperator(")");
            return value;
        }

        return TakeOperator("[") ? new ListLiteral([.. Items("]", Expression)])
            : TakeOperator("{") ? new DictLiteral([.. Items("}", Pair)])
            : throw Fail(token.Kind == TokenKind.End ? "the template ends inside an expression" : "an expression is expected", token.Position);
    }

    private Expression NameOrConstant(string name)
    {
        switch (name)
        {
            case "true" or "True":
                return new Literal(true);
            case "false" or "False":
                return new Literal(false);
            case "none" or "None":
                return new Literal(null);
            case "caller" or "varargs" or "kwargs":
                foreach (SpecialNames macro in _macros)
                {
                    macro.Read(name);
                }

                break;
        }

        return new Name(name);
    }

    private (Expression, Expression) Pair()
    {
        Expression key = Expression();
        ExpectOperator(":");
        return (key, Expression());
    }

    private List<T> Items<T>(string end, Func<T> item)
    {
        var items = new List<T>();
        while (!IsOperator(end))
        {
            items.Add(item());
            if (!TakeOperator(","))
            {
                break;
            }
        }

        ExpectOperator(end);
        return items;
    }
}
