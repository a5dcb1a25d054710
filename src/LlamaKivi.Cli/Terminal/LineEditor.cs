using System.Text;

namespace LlamaKivi.Cli;

/// <summary>Reads lines from a terminal, with cursor keys and history.</summary>
/// <param name="readKey">Reads a key without echo; null: end of input.</param>
/// <param name="write">Writes text to the terminal.</param>
internal sealed class LineEditor(Func<ConsoleKeyInfo?> readKey, Action<string> write)
{
    private readonly List<string> _history = [];

    /// <summary>Lines read so far, oldest first.</summary>
    public IReadOnlyList<string> History => _history;

    /// <summary>Reads a line.</summary>
    /// <param name="prompt">Text shown before the line.</param>
    /// <returns>The line; empty after Ctrl-C; null at the end of input (Ctrl-D on an empty line).</returns>
    public string? ReadLine(string prompt)
    {
        var line = new StringBuilder();
        int cursor = 0;
        int entry = _history.Count;
        string draft = "";
        write(prompt);
        while (readKey() is { } key)
        {
            bool control = key.Modifiers.HasFlag(ConsoleModifiers.Control);
            switch (key.Key)
            {
                case ConsoleKey.Enter:
                    write("\n");
                    string text = line.ToString();
                    if (text.Length > 0 && (_history.Count == 0 || _history[^1] != text))
                    {
                        _history.Add(text);
                    }

                    return text;
                case ConsoleKey.C when control:
                    write("^C\n");
                    return "";
                case ConsoleKey.D when control && line.Length == 0:
                    write("\n");
                    return null;
                case ConsoleKey.LeftArrow:
                    cursor -= cursor > 0 ? Step(line, cursor - 1) : 0;
                    break;
                case ConsoleKey.RightArrow:
                    cursor += cursor < line.Length ? Step(line, cursor) : 0;
                    break;
                case ConsoleKey.Home:
                case ConsoleKey.A when control:
                    cursor = 0;
                    break;
                case ConsoleKey.End:
                case ConsoleKey.E when control:
                    cursor = line.Length;
                    break;
                case ConsoleKey.Backspace when cursor > 0:
                    int back = Step(line, cursor - 1);
                    cursor -= back;
                    line.Remove(cursor, back);
                    break;
                case ConsoleKey.Delete or ConsoleKey.D when cursor < line.Length && (control || key.Key == ConsoleKey.Delete):
                    line.Remove(cursor, Step(line, cursor));
                    break;
                case ConsoleKey.U when control:
                    line.Remove(0, cursor);
                    cursor = 0;
                    break;
                case ConsoleKey.K when control:
                    line.Remove(cursor, line.Length - cursor);
                    break;
                case ConsoleKey.UpArrow when entry > 0:
                    draft = entry == _history.Count ? line.ToString() : draft;
                    Show(_history[--entry]);
                    break;
                case ConsoleKey.DownArrow when entry < _history.Count:
                    Show(++entry == _history.Count ? draft : _history[entry]);
                    break;
                default:
                    if (!char.IsControl(key.KeyChar))
                    {
                        line.Insert(cursor++, key.KeyChar);
                    }

                    break;
            }

            // Redraws the whole line and moves the cursor back from its end.
            write($"\r\u001b[K{prompt}{line}");
            if (cursor < line.Length)
            {
                write($"\u001b[{line.Length - cursor}D");
            }
        }

        return null;

        void Show(string other)
        {
            line.Clear().Append(other);
            cursor = line.Length;
        }
    }

    // Number of UTF-16 units of the character at an index; a surrogate pair has two.
    private static int Step(StringBuilder line, int index) => char.IsSurrogate(line[index]) ? 2 : 1;
}
