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

/// <summary>A token of a template.</summary>
/// <param name="Kind">The kind of token.</param>
/// <param name="Text">The text of data, a name, a string (without quotes) or an operator.</param>
/// <param name="Value">Value of a number.</param>
/// <param name="Position">Start of the token in the template.</param>
internal readonly record struct Token(TokenKind Kind, string Text, object? Value, int Position);
