using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace LlamaKivi.Cli.Evaluation;

/// <summary>Scores of an answer against the ones that are right, 0 to 1; of several right ones the best counts.</summary>
internal static partial class Metrics
{
    /// <summary>1 if the texts are the same after <see cref="Normalize"/>, as SQuAD scores it.</summary>
    public static double ExactMatch(string answer, IEnumerable<string> right) => right.Max(r => Normalize(answer) == Normalize(r) ? 1.0 : 0.0);

    /// <summary>Harmonic mean of the parts of either text's words that the other has, after <see cref="Normalize"/>, as SQuAD scores it.</summary>
    public static double TokenF1(string answer, IEnumerable<string> right) => right.Max(r => F1(Words(Normalize(answer)), Words(Normalize(r))));

    /// <summary>ROUGE-L (Lin 2004): harmonic mean of the longest common subsequence's parts of either text; words are runs of letters and digits in lower case.</summary>
    public static double RougeL(string answer, IEnumerable<string> right) => right.Max(r => Harmonic(AlphanumericWords(answer), AlphanumericWords(r), CommonSubsequence));

    /// <summary>1 if the last numbers of both texts are equal, as GSM8K is scored; what follows "####" in a right answer is its number.</summary>
    public static double LastNumber(string answer, IEnumerable<string> right)
    {
        decimal? number = FindLastNumber(answer);
        return right.Max(r => number is not null && number == FindLastNumber(r[(r.LastIndexOf("####", StringComparison.Ordinal) is >= 0 and int at ? at : 0)..]) ? 1.0 : 0.0);
    }

    /// <summary>Lower case, without punctuation and the articles a, an, the; single spaces.</summary>
    public static string Normalize(string text)
    {
        var kept = new StringBuilder();
        foreach (char c in text.ToLowerInvariant())
        {
            if (!char.IsPunctuation(c) && !char.IsSymbol(c))
            {
                kept.Append(c);
            }
        }

        return string.Join(' ', Words(Articles().Replace(kept.ToString(), " ")));
    }

    /// <summary>Mean, and its standard error: the sample's standard deviation over the root of its size.</summary>
    public static (double Mean, double StandardError) MeanAndError(IReadOnlyCollection<double> values)
    {
        if (values.Count == 0)
        {
            return (double.NaN, double.NaN);
        }

        double mean = values.Average();
        double variance = values.Count > 1 ? values.Sum(v => (v - mean) * (v - mean)) / (values.Count - 1) : 0;
        return (mean, Math.Sqrt(variance / values.Count));
    }

    private static decimal? FindLastNumber(string text)
    {
        MatchCollection found = Numbers().Matches(text);
        return found.Count > 0 && decimal.TryParse(found[^1].Value.Replace(",", "", StringComparison.Ordinal), NumberStyles.Number, CultureInfo.InvariantCulture, out decimal number) ? number : null;
    }

    private static string[] Words(string text) => text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);

    private static string[] AlphanumericWords(string text) => [.. Alphanumeric().Matches(text.ToLowerInvariant()).Select(m => m.Value)];

    private static double F1(string[] a, string[] b) => Harmonic(a, b, static (x, y) =>
    {
        Dictionary<string, int> left = y.GroupBy(w => w).ToDictionary(g => g.Key, g => g.Count());
        return x.Count(w => left.TryGetValue(w, out int n) && n > 0 && --left[w] >= 0);
    });

    private static double Harmonic(string[] a, string[] b, Func<string[], string[], int> common)
    {
        if (a.Length == 0 || b.Length == 0)
        {
            return a.Length == b.Length ? 1 : 0;
        }

        double n = common(a, b);
        return 2 * n / (a.Length + b.Length);
    }

    private static int CommonSubsequence(string[] a, string[] b)
    {
        var row = new int[b.Length + 1];
        foreach (string word in a)
        {
            int diagonal = 0;
            for (int j = 1; j <= b.Length; j++)
            {
                int above = row[j];
                row[j] = word == b[j - 1] ? diagonal + 1 : Math.Max(above, row[j - 1]);
                diagonal = above;
            }
        }

        return row[^1];
    }

    [GeneratedRegex(@"\b(a|an|the)\b")]
    private static partial Regex Articles();

    [GeneratedRegex(@"-?\d[\d,]*(\.\d+)?")]
    private static partial Regex Numbers();

    [GeneratedRegex("[a-z0-9]+")]
    private static partial Regex Alphanumeric();
}
