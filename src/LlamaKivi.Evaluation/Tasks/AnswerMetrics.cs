using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace LlamaKivi.Evaluation;

/// <summary>Scores of an answer against reference answers, from 0 (wrong) to 1 (right). The best-matching reference counts.</summary>
public static partial class AnswerMetrics
{
    /// <summary>1 if answer and reference are equal after <see cref="Normalize"/>, otherwise 0. Source: SQuAD (Rajpurkar et al. 2016).</summary>
    /// <param name="answer">The model's answer.</param>
    /// <param name="references">Correct answers, at least one.</param>
    /// <exception cref="InvalidOperationException">There are no references.</exception>
    public static double ExactMatch(string answer, IEnumerable<string> references) => references.Max(r => Normalize(answer) == Normalize(r) ? 1.0 : 0.0);

    /// <summary>Harmonic mean of the precision and recall of words after <see cref="Normalize"/>. Source: SQuAD (Rajpurkar et al. 2016).</summary>
    /// <inheritdoc cref="ExactMatch"/>
    public static double TokenF1(string answer, IEnumerable<string> references) => references.Max(r => F1(Words(Normalize(answer)), Words(Normalize(r))));

    /// <summary>
    /// ROUGE-L: harmonic mean of the precision and recall of the longest common subsequence of words. A word is a run of letters and digits, in lower case.
    /// Source: Lin 2004, section 3, with equal weights.
    /// </summary>
    /// <inheritdoc cref="ExactMatch"/>
    public static double RougeL(string answer, IEnumerable<string> references) => references.Max(r => Harmonic(AlphanumericWords(answer), AlphanumericWords(r), CommonSubsequence));

    /// <summary>1 if the last numbers of answer and reference are equal, otherwise 0. "####" in a reference precedes its number. Source: GSM8K (Cobbe et al. 2021).</summary>
    /// <inheritdoc cref="ExactMatch"/>
    public static double LastNumber(string answer, IEnumerable<string> references)
    {
        decimal? number = FindLastNumber(answer);
        return references.Max(r => number is not null && number == FindLastNumber(r[(r.LastIndexOf("####", StringComparison.Ordinal) is >= 0 and int at ? at : 0)..]) ? 1.0 : 0.0);
    }

    /// <summary>The text in lower case, without punctuation, symbols and the articles a, an, the, with single spaces between words. Source: SQuAD's evaluation.</summary>
    /// <param name="text">The text.</param>
    public static string Normalize(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
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

    /// <summary>Mean and standard error: s / sqrt(n), where s is the sample standard deviation (n - 1 degrees of freedom).</summary>
    /// <param name="values">n values; n = 0 gives NaN for both results.</param>
    public static (double Mean, double StandardError) MeanAndError(IReadOnlyCollection<double> values)
    {
        ArgumentNullException.ThrowIfNull(values);
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
        Dictionary<string, int> left = y.GroupBy(w => w, StringComparer.Ordinal).ToDictionary(g => g.Key, g => g.Count(), StringComparer.Ordinal);
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
