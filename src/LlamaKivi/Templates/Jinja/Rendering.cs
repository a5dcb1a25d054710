namespace LlamaKivi.Templates.Jinja;

/// <summary>The state of one rendering.</summary>
internal sealed class Rendering
{
    private const int GrantEvery = 4096;

    private int _granted;

    public Rendering(Scope root, Budget budget, TimeProvider time, Dictionary<string, BlockStatement> blocks)
    {
        Budget = budget;
        Root = root;
        Scope = root;
        Time = time;
        Blocks = blocks;
    }

    public Budget Budget { get; }

    public TimeProvider Time { get; }

    /// <summary>The blocks of the template, by name.</summary>
    public Dictionary<string, BlockStatement> Blocks { get; }

    /// <summary>The caller's variables, and those that the template sets at its top level.</summary>
    public Scope Root { get; }

    public Scope Scope { get; set; }

    public TextBuilder Output { get; private set; } = new();

    /// <summary>Whether outputs are escaped as HTML: inside an autoescape block.</summary>
    public bool Autoescape { get; set; }

    /// <summary>Whether the current output consists of constants.</summary>
    public bool IsConstantOutput { get; set; }

    /// <summary>Line of the current statement.</summary>
    public int Line { get; set; } = 1;

    public string Run(Statement[] body)
    {
        Execute(body);
        return Output.ToString();
    }

    public Flow Execute(Statement[] body)
    {
        foreach (Statement statement in body)
        {
            Flow flow = Execute(statement);
            if (flow != Flow.Next)
            {
                return flow;
            }
        }

        return Flow.Next;
    }

    /// <summary>Writes the text of a value.</summary>
    public void Write(object? value)
    {
        string text = Str(value);
        Output.Append(Autoescape && value is not Markup ? HtmlText.Escape(Budget, text) : text);
    }

    public string Str(object? value) => Representation.Str(Budget, value);

    /// <summary>Writes the result of a filter or call block, which must be a string.</summary>
    public void WriteText(object? value) => Output.Append(Types.Str(value) ?? throw Types.Error(value, $"The result of a block must be a string, not a {Types.Name(value)}."));

    /// <summary>Captures the output of statements.</summary>
    public string Capture(Statement[] body, Scope scope, out Flow flow)
    {
        (TextBuilder output, Scope outer) = (Output, Scope);
        Output = new TextBuilder();
        Scope = scope;
        flow = Execute(body);
        string text = Budget.Made(Output.ToString());
        (Output, Scope) = (output, outer);
        return text;
    }

    /// <summary>Converts a captured output to a value.</summary>
    public object Captured(string text) => Autoescape ? new Markup(text) : text;

    private Flow Execute(Statement statement)
    {
        Budget.Step();
        Budget.Enter();
        int line = Line;
        Line = statement.Line;
        Flow flow = statement.Execute(this);
        Line = line;
        Budget.Leave();
        if (Output.Length - _granted >= GrantEvery)
        {
            Budget.Grant(Output.Length - _granted);
            _granted = Output.Length;
        }

        return flow;
    }
}
