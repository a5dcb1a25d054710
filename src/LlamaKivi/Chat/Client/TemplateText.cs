namespace LlamaKivi;

/// <summary>Finds the variables that a Jinja chat template reads, from its source, in linear time: an untrusted template may open many tags and close none.</summary>
internal sealed class TemplateText
{
    private readonly HashSet<string> _names = new(StringComparer.Ordinal);

    public TemplateText(string source)
    {
        Source = source;
        string unclosed = "";  // second characters of openings that nothing closes from here on
        for (int i = source.IndexOf('{', StringComparison.Ordinal); i >= 0 && i + 1 < source.Length; i = source.IndexOf('{', i))
        {
            char kind = source[i + 1];
            string? closing = kind switch { '#' => "#}", '%' => "%}", '{' => "}}", _ => null };
            int end = closing is null || unclosed.Contains(kind, StringComparison.Ordinal) ? -1 : source.IndexOf(closing, i + 2, StringComparison.Ordinal);
            if (end < 0)
            {
                unclosed += closing is null || unclosed.Contains(kind, StringComparison.Ordinal) ? "" : kind.ToString();
                i++;
                continue;
            }

            if (kind != '#')
            {
                AddNames(source.AsSpan(i + 2, end - i - 2));
            }

            i = end + 2;
        }
    }

    public string Source { get; }

    /// <summary>Whether the template reads a variable.</summary>
    public bool Reads(string name) => _names.Contains(name);

    private static bool IsWord(char c) => char.IsLetterOrDigit(c) || c == '_';

    // A name after a dot is a member, not a variable.
    private void AddNames(ReadOnlySpan<char> tag)
    {
        string unclosed = "";  // quotes that begin no string from here on
        for (int i = 0; i < tag.Length;)
        {
            char c = tag[i];
            int begin = i++;
            if ((c is '\'' or '"') && !unclosed.Contains(c, StringComparison.Ordinal))
            {
                int length = StringLength(tag[begin..]);
                unclosed += length == 0 ? c.ToString() : "";
                i = length == 0 ? i : begin + length;
            }
            else if (IsWord(c))
            {
                while (i < tag.Length && IsWord(tag[i]))
                {
                    i++;
                }

                if ((char.IsAsciiLetter(c) || c == '_') && (begin == 0 || tag[begin - 1] != '.'))
                {
                    _names.Add(tag[begin..i].ToString());
                }
            }
        }
    }

    // Length of the string that a text begins with; 0: nothing closes it.
    private static int StringLength(ReadOnlySpan<char> text)
    {
        for (int i = 1; i < text.Length; i++)
        {
            if (text[i] == text[0])
            {
                return i + 1;
            }

            i += text[i] == '\\' ? 1 : 0;
        }

        return 0;
    }
}
