namespace LlamaKivi.Templates.Jinja;

/// <summary>Methods that test the characters of strings.</summary>
internal static class StrTestMethods
{
    public static IEnumerable<Operation> All =>
    [
        Of("isalnum", text => AllAre(text, PyText.IsAlphanumeric)),
        Of("isalpha", text => AllAre(text, PyText.IsLetter)),
        Of("isascii", text => text.All(char.IsAscii)),
        Of("isdecimal", text => AllAre(text, PyText.IsDecimal)),
        Of("isdigit", text => AllAre(text, PyText.IsDigit)),
        Of("isnumeric", text => AllAre(text, code => PyText.NumericValue(code) != -1)),
        Of("isidentifier", text => text.Length > 0 && PyText.IsNameStart(PyText.CodePoints(text).First()) && PyText.CodePoints(text).All(PyText.IsNamePart)),
        Of("islower", text => CaseMapping.All(text, CaseMapping.IsLower)),
        Of("isupper", text => CaseMapping.All(text, CaseMapping.IsUpper)),
        Of("istitle", CaseMapping.IsTitle),
        Of("isprintable", text => PyText.CodePoints(text).All(PyText.IsPrintable)),
        Of("isspace", text => text.Length > 0 && text.All(PyText.IsSpace)),
    ];

    private static Operation Of(string name, Func<string, bool> holds) => new(name, "/", (r, s, _) =>
    {
        r.Budget.Run(32L * StrMethods.Self(s).Length);
        return holds(r.Budget.Meant(StrMethods.Self(s)));
    });

    private static bool AllAre(string text, Func<int, bool> holds) => text.Length > 0 && PyText.CodePoints(text).All(holds);
}
