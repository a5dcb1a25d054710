using System.Globalization;
using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates;

/// <summary>Builds a template's tree.</summary>
internal sealed class JinjaParser(string source)
{
    // The deepest nesting of statements and expressions: their evaluation recurses.
    private const int MaxDepth = 200;

    private readonly List<JinjaToken> _tokens = new JinjaLexer(source).Run();
    private int _at;
    private int _depth;
    private int _line = 1;
    private int _lineAt;  // where counting lines has come to

    private JinjaToken Current => _tokens[_at];

    public Statement[] Run()
    {
        Statement[] body = Body([], out _);
        return body;
    }

    private TemplateException Fail(string what) => JinjaLexer.Fail(source, what, Current.Position);

    private void Enter()
    {
        if (++_depth > MaxDepth || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw Fail("the nesting is too deep");
        }
    }

    // Of positions in their order.
    private int LineOf(int position)
    {
        _line += source.AsSpan(_lineAt, position - _lineAt).Count('\n');
        _lineAt = position;
        return _line;
    }

    private bool IsOperator(string text) => Current.Kind == TokenKind.Operator && Current.Text == text;

    private bool IsName(string text) => Current.Kind == TokenKind.Name && Current.Text == text;

    private bool TakeOperator(string text)
    {
        bool found = IsOperator(text);
        _at += found ? 1 : 0;
        return found;
    }

    private bool TakeName(string text)
    {
        bool found = IsName(text);
        _at += found ? 1 : 0;
        return found;
    }

    private void ExpectOperator(string text)
    {
        if (!TakeOperator(text))
        {
            throw Fail($"'{text}' is expected");
        }
    }

    private string ExpectName()
    {
        if (Current.Kind != TokenKind.Name)
        {
            throw Fail("a name is expected");
        }

        return _tokens[_at++].Text;
    }

    private void Expect(TokenKind kind, string text)
    {
        if (Current.Kind != kind)
        {
            throw Fail($"'{text}' is expected");
        }

        _at++;
    }

    // Statements up to one of the given ends, which is taken; at the top, up to the end of the template.
    private Statement[] Body(string[] ends, out string end)
    {
        Enter();
        var body = new List<Statement>();
        while (true)
        {
            JinjaToken token = _tokens[_at++];
            switch (token.Kind)
            {
                case TokenKind.Text:
                    body.Add(new TextStatement(token.Text));
                    break;
                case TokenKind.BeginOutput:
                    int line = LineOf(token.Position);
                    body.Add(new OutputStatement(Expr()) { Line = line });
                    Expect(TokenKind.EndOutput, "}}");
                    break;
                case TokenKind.BeginStatement:
                    string name = ExpectName();
                    if (Array.IndexOf(ends, name) >= 0)
                    {
                        end = name;
                        _depth--;
                        return [.. body];
                    }

                    int begins = LineOf(token.Position);
                    body.Add(StatementOf(name) with { Line = begins });
                    break;
                default:
                    _at--;
                    if (ends.Length > 0)
                    {
                        throw Fail($"'{{% {ends[^1]} %}}' is missing");
                    }

                    end = "";
                    _depth--;
                    return [.. body];
            }
        }
    }

    private void EndOfStatement() => Expect(TokenKind.EndStatement, "%}");

    // The body of a statement whose head was read, and its end.
    private Statement[] BodyTo(string end)
    {
        EndOfStatement();
        Statement[] body = Body([end], out _);
        EndOfStatement();
        return body;
    }

    private Statement StatementOf(string name)
    {
        switch (name)
        {
            case "if":
                return If();
            case "for":
                return For();
            case "set":
                return Set();
            case "macro":
                return new MacroStatement(ExpectName(), Parameters(), BodyTo("endmacro"));
            case "call":
                return new CallStatement(Expr(), BodyTo("endcall"));
            case "filter":
                string filter = ExpectName();
                return new FilterStatement(filter, IsOperator("(") ? Args() : Arguments.None, BodyTo("endfilter"));
            case "generation":
                return new BlockStatement(BodyTo("endgeneration"));
            case "break":
            case "continue":
                EndOfStatement();
                return new LoopControl(name == "break");
            default:
                _at--;
                throw Fail($"the statement '{name}' is not known");
        }
    }

    private IfStatement If()
    {
        var branches = new List<(Expression, Statement[])>();
        Statement[] otherwise = [];
        string end;
        do
        {
            Expression condition = Expr();
            EndOfStatement();
            branches.Add((condition, Body(["elif", "else", "endif"], out end)));
        }
        while (end == "elif");
        if (end == "else")
        {
            otherwise = BodyTo("endif");
        }
        else
        {
            EndOfStatement();
        }

        return new IfStatement([.. branches], otherwise);
    }

    private ForStatement For()
    {
        string[] names = Names();
        if (!TakeName("in"))
        {
            throw Fail("'in' is expected");
        }

        Expression sequence = Or();  // not a conditional: its 'if' is the loop's
        Expression? condition = TakeName("if") ? Expr() : null;
        TakeName("recursive");
        EndOfStatement();
        Statement[] body = Body(["else", "endfor"], out string end);
        Statement[] otherwise = end == "else" ? BodyTo("endfor") : [];
        if (end == "endfor")
        {
            EndOfStatement();
        }

        return new ForStatement(names, sequence, condition, body, otherwise);
    }

    private string[] Names()
    {
        bool parenthesis = TakeOperator("(");
        var names = new List<string> { ExpectName() };
        while (TakeOperator(","))
        {
            names.Add(ExpectName());
        }

        if (parenthesis)
        {
            ExpectOperator(")");
        }

        return [.. names];
    }

    private SetStatement Set()
    {
        string[] names = Names();
        string? attribute = names.Length == 1 && TakeOperator(".") ? ExpectName() : null;
        if (!TakeOperator("="))
        {
            return new SetStatement(names, attribute, null, BodyTo("endset"));
        }

        Expression value = Expr();
        if (IsOperator(","))
        {
            var items = new List<Expression> { value };
            while (TakeOperator(","))
            {
                items.Add(Expr());
            }

            value = new ListLiteral([.. items]);
        }

        EndOfStatement();
        return new SetStatement(names, attribute, value, []);
    }

    private (string, Expression?)[] Parameters()
    {
        ExpectOperator("(");
        var parameters = new List<(string, Expression?)>();
        while (!TakeOperator(")"))
        {
            string name = ExpectName();
            parameters.Add((name, TakeOperator("=") ? Expr() : null));
            if (!IsOperator(")"))
            {
                ExpectOperator(",");
            }
        }

        return [.. parameters];
    }

    private Expression Expr()
    {
        Enter();
        Expression value = Or();
        while (TakeName("if"))
        {
            Expression condition = Or();
            value = new Conditional(condition, value, TakeName("else") ? Expr() : null);
        }

        _depth--;
        return value;
    }

    private Expression Or()
    {
        Expression left = And();
        while (TakeName("or"))
        {
            left = new Binary("or", left, And());
        }

        return left;
    }

    private Expression And()
    {
        Expression left = Not();
        while (TakeName("and"))
        {
            left = new Binary("and", left, Not());
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
            value = new Unary("not", value);
        }

        return value;
    }

    private Expression Comparison()
    {
        Expression left = Sum();
        Expression? chain = null;
        while (true)
        {
            string? op = null;
            if (Current.Kind == TokenKind.Operator && Current.Text is "==" or "!=" or "<" or ">" or "<=" or ">=")
            {
                op = _tokens[_at++].Text;
            }
            else if (TakeName("in"))
            {
                op = "in";
            }
            else if (IsName("not") && _tokens[_at + 1] is { Kind: TokenKind.Name, Text: "in" })
            {
                _at += 2;
                op = "not in";
            }

            if (op is null)
            {
                return chain ?? left;
            }

            Expression right = Sum();
            var link = new Binary(op, left, right);
            chain = chain is null ? link : new Binary("and", chain, link);
            left = right;
        }
    }

    private Expression Sum()
    {
        Expression left = Concatenation();
        while (IsOperator("+") || IsOperator("-"))
        {
            left = new Binary(_tokens[_at++].Text, left, Concatenation());
        }

        return left;
    }

    private Expression Concatenation()
    {
        Expression left = Product();
        while (TakeOperator("~"))
        {
            left = new Binary("~", left, Product());
        }

        return left;
    }

    private Expression Product()
    {
        Expression left = Sign();
        while (Current.Kind == TokenKind.Operator && Current.Text is "*" or "/" or "//" or "%")
        {
            left = new Binary(_tokens[_at++].Text, left, Sign());
        }

        return left;
    }

    private Expression Sign()
    {
        if (IsOperator("-") || IsOperator("+"))
        {
            Enter();
            var signed = new Unary(_tokens[_at++].Text, Sign());
            _depth--;
            return signed;
        }

        Expression value = Postfix(Primary());
        if (TakeOperator("**"))
        {
            Enter();
            value = new Binary("**", value, Sign());
            _depth--;
        }

        return value;
    }

    private Expression Postfix(Expression value)
    {
        while (true)
        {
            if (TakeOperator("."))
            {
                value = Current.Kind == TokenKind.Integer
                    ? new Member(value, new Literal(long.Parse(_tokens[_at++].Text, CultureInfo.InvariantCulture)), IsAttribute: false)
                    : new Member(value, new Literal(ExpectName()), IsAttribute: true);
            }
            else if (TakeOperator("["))
            {
                value = Subscript(value);
            }
            else if (IsOperator("("))
            {
                value = new Call(value, Args());
            }
            else if (TakeOperator("|"))
            {
                string name = ExpectName();
                value = new Filter(value, name, IsOperator("(") ? Args() : Arguments.None);
            }
            else if (TakeName("is"))
            {
                bool negated = TakeName("not");
                string name = ExpectName();
                Arguments arguments = IsOperator("(") ? Args() : BareArgument();
                value = new Test(value, name, arguments, negated);
            }
            else
            {
                return value;
            }
        }
    }

    // `x is divisibleby 3`
    private Arguments BareArgument() =>
        Current.Kind is TokenKind.Integer or TokenKind.Float or TokenKind.String
            ? new Arguments([Primary()], [])
            : Arguments.None;

    private Expression Subscript(Expression target)
    {
        Expression? start = IsOperator(":") ? null : Expr();
        if (!IsOperator(":"))
        {
            ExpectOperator("]");
            return new Member(target, start!, IsAttribute: false);
        }

        ExpectOperator(":");
        Expression? stop = IsOperator(":") || IsOperator("]") ? null : Expr();
        Expression? step = TakeOperator(":") && !IsOperator("]") ? Expr() : null;
        ExpectOperator("]");
        return new Slice(target, start, stop, step);
    }

    private Arguments Args()
    {
        ExpectOperator("(");
        var positional = new List<Expression>();
        var named = new List<(string, Expression)>();
        var names = new HashSet<string>(StringComparer.Ordinal);
        while (!TakeOperator(")"))
        {
            if (Current.Kind == TokenKind.Name && _tokens[_at + 1] is { Kind: TokenKind.Operator, Text: "=" })
            {
                string name = ExpectName();
                if (!names.Add(name))
                {
                    throw Fail($"the argument '{name}' is given twice");
                }

                _at++;
                named.Add((name, Expr()));
            }
            else
            {
                positional.Add(Expr());
            }

            if (!IsOperator(")"))
            {
                ExpectOperator(",");
            }
        }

        return new Arguments([.. positional], [.. named]);
    }

    private Expression Primary()
    {
        JinjaToken token = _tokens[_at++];
        switch (token.Kind)
        {
            case TokenKind.String:
                int first = _at - 1;
                while (Current.Kind == TokenKind.String)
                {
                    _at++;  // neighbours are one text
                }

                return new Literal(string.Concat(_tokens.Skip(first).Take(_at - first).Select(part => part.Text)));
            case TokenKind.Integer:
                return new Literal(long.Parse(token.Text, CultureInfo.InvariantCulture));
            case TokenKind.Float:
                return new Literal(double.Parse(token.Text, CultureInfo.InvariantCulture));
            case TokenKind.Name:
                return token.Text switch
                {
                    "true" or "True" => new Literal(true),
                    "false" or "False" => new Literal(false),
                    "none" or "None" => new Literal(null),
                    _ => new Variable(token.Text),
                };
            case TokenKind.Operator when token.Text == "(":
                return Parenthesis();
            case TokenKind.Operator when token.Text == "[":
                return new ListLiteral(Items("]"));
            case TokenKind.Operator when token.Text == "{":
                return Dict();
            default:
                _at--;
                throw Fail("an expression is expected");
        }
    }

    private Expression Parenthesis()
    {
        if (TakeOperator(")"))
        {
            return new ListLiteral([]);
        }

        Expression first = Expr();
        if (TakeOperator(")"))
        {
            return first;
        }

        ExpectOperator(",");
        return new ListLiteral([first, .. Items(")")]);
    }

    private Expression[] Items(string end)
    {
        var items = new List<Expression>();
        while (!TakeOperator(end))
        {
            items.Add(Expr());
            if (!IsOperator(end))
            {
                ExpectOperator(",");
            }
        }

        return [.. items];
    }

    private DictLiteral Dict()
    {
        var items = new List<(Expression, Expression)>();
        while (!TakeOperator("}"))
        {
            Expression key = Expr();
            ExpectOperator(":");
            items.Add((key, Expr()));
            if (!IsOperator("}"))
            {
                ExpectOperator(",");
            }
        }

        return new DictLiteral([.. items]);
    }
}
