using System.Text.RegularExpressions;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Python's textwrap: breaks text between words into lines of a width.</summary>
internal static partial class WordWrapping
{
    public static List<string> Wrap(Budget budget, string text, long width, bool breaksLongWords, bool breaksOnHyphens)
    {
        if (width <= 0)
        {
            throw new TemplateException("The width of wordwrap must be at least 1.");
        }

        budget.Run(512L * text.Length);
        var chunks = new LinkedList<string>(Chunks(text, breaksOnHyphens));
        var lines = new List<string>();
        while (chunks.Count > 0)
        {
            budget.Items(1);
            if (lines.Count > 0 && IsBlank(chunks.First!.Value))
            {
                chunks.RemoveFirst();
            }

            var line = new List<string>();
            long length = 0;
            while (chunks.Count > 0 && length + PyText.Length(chunks.First!.Value) <= width)
            {
                budget.Step();
                length += PyText.Length(chunks.First.Value);
                line.Add(chunks.First.Value);
                chunks.RemoveFirst();
            }

            if (chunks.Count > 0 && PyText.Length(chunks.First!.Value) > width)
            {
                BreakWord(chunks, line, (int)(width - length), breaksLongWords, breaksOnHyphens);
                budget.Step(chunks.First is { } next ? 1 + next.Value.Length / 64 : 1);
            }

            if (line.Count > 0 && IsBlank(line[^1]))
            {
                line.RemoveAt(line.Count - 1);
            }

            if (line.Count > 0)
            {
                lines.Add(string.Concat(line));
            }
        }

        return lines;
    }

    private static void BreakWord(LinkedList<string> chunks, List<string> line, int room, bool breaksLongWords, bool breaksOnHyphens)
    {
        string word = chunks.First!.Value;
        if (!breaksLongWords)
        {
            if (line.Count == 0)
            {
                chunks.RemoveFirst();
                line.Add(word);
            }

            return;
        }

        int end = PyText.Offset(word, room);
        int hyphen = breaksOnHyphens && end > 0 ? word.LastIndexOf('-', end - 1) : -1;
        end = hyphen > 0 && word.AsSpan(0, hyphen).ContainsAnyExcept('-') ? hyphen + 1 : end;
        line.Add(word[..end]);
        chunks.First.Value = word[end..];
    }

    private static IEnumerable<string> Chunks(string text, bool breaksOnHyphens) =>
        (breaksOnHyphens ? Hyphenated() : Words()).Matches(text).Select(match => match.Value).Where(chunk => chunk.Length > 0);

    private static bool IsBlank(string text) => PyText.Strip(text, null, true, true).Length == 0;

    [GeneratedRegex(@"[\t\n\v\f\r ]+|[^\t\n\v\f\r ]+", RegexOptions.CultureInvariant, 2000)]
    private static partial Regex Words();

    // White space, dashes between words, or a word up to a hyphen between letters, a dash or its end.
    [GeneratedRegex(
        @"[\t\n\v\f\r ]+|(?<=[\w!""'&.,?])-{2,}(?=\w)|[^\t\n\v\f\r ]+?(?:-(?:(?<=[^\d\W]{2}-)|(?<=[^\d\W]-[\w!""'&.,?]-))(?=[^\d\W]-?[^\d\W])|(?=[\t\n\v\f\r ]|\z)|(?<=[\w!""'&.,?])(?=-{2,}\w))",
        RegexOptions.CultureInvariant,
        2000)]
    private static partial Regex Hyphenated();
}
