namespace LlamaKivi.Templates.Jinja;

internal enum TokenKind
{
    Data,
    BeginOutput,
    EndOutput,
    BeginStatement,
    EndStatement,
    Name,
    String,
    Number,
    Operator,
    End,
}

/// <summary>A piece of a template.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Text">Its text: of data, a name, a string without its quotes, an operator.</param>
/// <param name="Value">The value of a number.</param>
/// <param name="Position">Where it begins.</param>
internal readonly record struct Token(TokenKind Kind, string Text, object? Value, int Position);
