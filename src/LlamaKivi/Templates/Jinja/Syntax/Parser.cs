namespace LlamaKivi.Templates.Jinja;

/// <summary>A parsed template: its statements and its blocks.</summary>
internal sealed record Parsed(Statement[] Body, Dictionary<string, BlockStatement> Blocks);

/// <summary>Parses statements.</summary>
internal sealed class Parser(string source) : ExpressionParser(source)
{
    private readonly Dictionary<string, BlockStatement> _blocks = new(StringComparer.Ordinal);
    private readonly List<(string What, int Position)> _errors = [];
    private int _loops;  // loops around the current statement, inside its macro or block

    public Parsed Run()
    {
        Statement[] body = Body([], out _);
        _errors.AddRange(TakeUnknown(0));
        return _errors.Count == 0 ? new Parsed(body, _blocks) : throw Fail(_errors[0].What, _errors[0].Position);
    }

    // Parses statements up to and including one of the given end tags; at top level, up to the end of the template.
    private Statement[] Body(string[] ends, out string end)
    {
        Enter();
        var body = new List<Statement>();
        while (true)
        {
            Token token = Take();
            int line = LineOf(token.Position);
            switch (token.Kind)
            {
                case TokenKind.Data:
                    body.Add(new DataStatement(token.Text) { Line = line });
                    break;
                case TokenKind.BeginOutput:
                    body.Add(new OutputStatement([Tuple()]) { Line = line });
                    Expect(TokenKind.EndOutput, "}}", token.Position);
                    break;
                case TokenKind.BeginStatement:
                    int position = Current.Position;
                    string name = ExpectName();
                    if (Array.IndexOf(ends, name) >= 0)
                    {
                        end = name;
                        Leave();
                        return [.. body];
                    }

                    body.Add(StatementOf(name, line, position));
                    Expect(TokenKind.EndStatement, "%}", token.Position);
                    break;
                default:
                    if (ends.Length > 0)
                    {
                        throw Fail($"'{{% {ends[^1]} %}}' is missing", token.Position);
                    }

                    end = "";
                    Leave();
                    return [.. body];
            }
        }
    }

    // Parses the body of a statement after its head, up to its end tag. The closing delimiter is left to the caller.
    private Statement[] BodyTo(params string[] ends) => BodyTo(out _, ends);

    private Statement[] BodyTo(out string end, params string[] ends)
    {
        TakeOperator(":");
        Expect(TokenKind.EndStatement, "%}");
        return Body(ends, out end);
    }

    // A body with a scope of its own, in which an unknown filter is an error even inside an if.
    private Statement[] ScopedBody(out string end, params string[] ends)
    {
        int mark = MarkUnknown();
        Statement[] body = BodyTo(out end, ends);
        _errors.AddRange(TakeUnknown(mark));
        return body;
    }

    // A body from which break and continue cannot reach an outer loop.
    private Statement[] ClosedBody(string end)
    {
        int loops = _loops;
        _loops = 0;
        Statement[] body = ScopedBody(out _, end);
        _loops = loops;
        return body;
    }

    private Statement StatementOf(string name, int line, int position)
    {
        switch (name)
        {
            case "if":
                return If(line);
            case "for":
                return For(line);
            case "set":
                return Set(line);
            case "with":
                return With(line);
            case "macro":
                return Macro(line);
            case "call":
                return Call(line);
            case "filter":
                return new FilterStatement(FilterChain(), ScopedBody(out _, "endfilter")) { Line = line };
            case "block":
                return Block(line);
            case "autoescape":
                return new AutoescapeStatement(Expression(), BodyTo("endautoescape")) { Line = line };
            case "generation":
                return new GenerationStatement(ClosedBody("endgeneration")) { Line = line };
            case "print":
                return Print(line);
            case "break" or "continue":
                return _loops > 0 ? new LoopControl(name == "break") { Line = line } : throw Fail($"'{name}' is outside of a loop", position);
            case "include" or "import" or "from" or "extends":
                return OtherTemplate(name, line);
            default:
                throw Fail($"unknown statement '{name}'", position);
        }
    }

    private IfStatement If(int line)
    {
        int mark = MarkUnknown();
        var branches = new List<(Expression, Statement[])>();
        string end;
        do
        {
            Expression condition = Tuple(allowsIf: false);
            branches.Add((condition, BodyTo(out end, "elif", "else", "endif")));
        }
        while (end == "elif");
        Statement[] otherwise = end == "else" ? BodyTo("endif") : [];
        ForgetUnknown(mark);
        return new IfStatement([.. branches], otherwise) { Line = line };
    }

    private ForStatement For(int line)
    {
        int position = Current.Position;
        Target target = Target("in", allowsNamespace: false);
        if (target.Names("loop"))
        {
            throw Fail("'loop' cannot be a loop variable", position);
        }

        ExpectName("in");
        Expression sequence = Tuple(allowsIf: false, end: "recursive");  // an if belongs to the loop
        Expression? condition = TakeName("if") ? Expression() : null;
        bool isRecursive = TakeName("recursive");
        _loops++;
        Statement[] body = ScopedBody(out string end, "else", "endfor");
        _loops--;
        Statement[] otherwise = end == "else" ? ScopedBody(out _, "endfor") : [];
        return new ForStatement(target, sequence, condition, isRecursive, body, otherwise) { Line = line };
    }

    private Statement Set(int line)
    {
        Target target = Target(null, allowsNamespace: true);
        if (TakeOperator("="))
        {
            return new SetStatement(target, Tuple()) { Line = line };
        }

        FilterExpression? filter = TakeOperator("|") ? FilterChain() : null;
        return new SetBlockStatement(target, filter, ScopedBody(out _, "endset")) { Line = line };
    }

    private WithStatement With(int line)
    {
        var assignments = new List<(Target, Expression)>();
        while (Current.Kind != TokenKind.EndStatement && !IsOperator(":"))
        {
            if (assignments.Count > 0)
            {
                ExpectOperator(",");
            }

            Target target = Target(null, allowsNamespace: false);
            ExpectOperator("=");
            assignments.Add((target, Expression()));
        }

        return new WithStatement([.. assignments], ScopedBody(out _, "endwith")) { Line = line };
    }

    private MacroStatement Macro(int line)
    {
        string name = NameToSet();
        (string, Expression?)[] parameters = Parameters();
        Statement[] body = MacroBody("endmacro", name, parameters, out MacroDefinition definition);
        return new MacroStatement(definition, body) { Line = line };
    }

    private CallStatement Call(int line)
    {
        (string, Expression?)[] parameters = IsOperator("(") ? Parameters() : [];
        int position = Current.Position;
        CallExpression call = Expression() as CallExpression ?? throw Fail("a call is expected", position);
        Statement[] body = MacroBody("endcall", null, parameters, out MacroDefinition definition);
        return new CallStatement(definition, call, body) { Line = line };
    }

    private Statement[] MacroBody(string end, string? name, (string Name, Expression? Default)[] parameters, out MacroDefinition definition)
    {
        int position = Current.Position;
        EnterMacro();
        Statement[] body = ClosedBody(end);
        SpecialNames special = LeaveMacro();
        bool Reads(string own) => special.Reads(own) && !Array.Exists(parameters, parameter => parameter.Name == own);
        if (special.Reads("caller") && Array.Exists(parameters, parameter => parameter is { Name: "caller", Default: null }))
        {
            throw Fail("a parameter named 'caller' needs a default", position);
        }

        definition = new MacroDefinition(name, parameters)
        {
            ReadsCaller = Reads("caller"),
            ReadsKeywords = Reads("kwargs"),
            ReadsPositional = Reads("varargs"),
        };
        return body;
    }

    private (string Name, Expression? Default)[] Parameters()
    {
        ExpectOperator("(");
        var parameters = new List<(string Name, Expression? Default)>();
        while (!TakeOperator(")"))
        {
            if (parameters.Count > 0)
            {
                ExpectOperator(",");
            }

            string name = NameToSet();
            Expression? fallback = TakeOperator("=") ? Expression() : null;
            if (fallback is null && parameters is [.., (_, not null)])
            {
                throw Fail("a parameter without a default follows one with a default");
            }

            if (parameters.Exists(parameter => parameter.Name == name))
            {
                throw Fail($"duplicate parameter '{name}'");
            }

            parameters.Add((name, fallback));
        }

        return [.. parameters];
    }

    private BlockStatement Block(int line)
    {
        int position = Current.Position;
        string name = ExpectName();
        bool isScoped = TakeName("scoped");
        bool isRequired = TakeName("required");
        Statement[] body = ClosedBody("endblock");
        TakeName(name);
        if (isRequired && Array.Exists(body, statement => statement is not DataStatement data || PyText.Strip(data.Text, null, true, true).Length > 0))
        {
            throw Fail($"the required block '{name}' must be empty", position);
        }

        var block = new BlockStatement(name, isScoped, isRequired, body) { Line = line };
        return _blocks.TryAdd(name, block) ? block : throw Fail($"duplicate block '{name}'", position);
    }

    private OutputStatement Print(int line)
    {
        var values = new List<Expression>();
        while (Current.Kind != TokenKind.EndStatement)
        {
            if (values.Count > 0)
            {
                ExpectOperator(",");
            }

            values.Add(Expression());
        }

        return new OutputStatement([.. values]) { Line = line };
    }

    // The head is parsed and discarded: executing the statement is an error.
    private OtherTemplateStatement OtherTemplate(string name, int line)
    {
        Expression();
        while (Current.Kind is not (TokenKind.EndStatement or TokenKind.End))
        {
            Take();
        }

        return new OtherTemplateStatement(name) { Line = line };
    }

    // The name of an assignment target.
    private string NameToSet()
    {
        int position = Current.Position;
        string name = ExpectName();
        if (name is "true" or "True" or "false" or "False" or "none" or "None")
        {
            throw Fail($"'{name}' cannot be assigned to", position);
        }

        Stored(name);
        return name;
    }

    // Assignment targets: one, or several separated by commas.
    private Target Target(string? end, bool allowsNamespace, bool inParentheses = false)
    {
        Enter();
        var targets = new List<Target>();
        bool isTuple = false;
        while (!(IsOperator(")") || (end is not null && IsName(end)) || Current.Kind == TokenKind.EndStatement))
        {
            targets.Add(SingleTarget(allowsNamespace));
            if (!TakeOperator(","))
            {
                break;
            }

            isTuple = true;
        }

        Leave();
        return isTuple || (inParentheses && targets.Count == 0) ? new TupleTarget([.. targets]) : targets.Count == 1 ? targets[0] : throw Fail("a name is expected");
    }

    private Target SingleTarget(bool allowsNamespace)
    {
        if (TakeOperator("("))
        {
            Target inner = Target(null, allowsNamespace: false, inParentheses: true);
            ExpectOperator(")");
            return inner;
        }

        if (allowsNamespace && Current.Kind == TokenKind.Name && Following is { Kind: TokenKind.Operator, Text: "." })
        {
            string space = ExpectName();
            Take();
            return new NamespaceTarget(space, ExpectName());
        }

        return new NameTarget(NameToSet());
    }
}
