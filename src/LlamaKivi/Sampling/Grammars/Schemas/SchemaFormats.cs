using System.Collections.Concurrent;
using LlamaKivi.Sampling.Grammars.Automata;

namespace LlamaKivi.Sampling.Grammars.Schemas;

/// <summary>
/// Formats and encodings of strings, as patterns. .NET's types can parse their texts: no leap seconds, times without an offset, valid dates. A date
/// and time with an offset excludes the first and last year, where subtracting the offset would leave the calendar.
/// </summary>
internal static class SchemaFormats
{
    private const string Years = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})";
    private const string InnerYears = "(?:000[2-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])";
    private const string LeapYears = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
    private const string Days = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
    private const string Clock = "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,7})?";
    private const string Offset = "[+-](?:0[0-9]|1[0-3]):[0-5][0-9]";
    private const string Label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
    private const string Host = $"{Label}(?:\\.{Label})*";
    private const string Email = $"[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@(?:{Label}\\.)+[A-Za-z]{{2,12}}";
    private const string Byte = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
    private const string Four = $"{Byte}(?:\\.{Byte}){{3}}";
    private const string Hex = "[0-9A-Fa-f]{1,4}";
    private const string UrlCharacter = "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})";
    private const string Port = "(?::(?:6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3}))?";
    private const string UrlRest = $"(?:/{UrlCharacter}*)*(?:\\?(?:{UrlCharacter}|[/?])*)?(?:#(?:{UrlCharacter}|[/?])*)?";
    private const string Url = $"(?:https?|ftp|wss?)://{Host}{Port}{UrlRest}";
    private const string Address = $"(?:{Url}|mailto:{Email}|urn:[a-z][a-z0-9]{{1,15}}:[A-Za-z0-9:._-]+)";
    private const string Base64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?";
    private const string Base64Url = "(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]|[A-Za-z0-9_-][AQgw])?";
    private const string ClockSpan = "(?:[0-9]{1,4}H(?:[0-9]{1,4}M)?(?:[0-9]{1,4}S)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)";

    private const string Date = $"(?:{Years}-{Days}|{LeapYears}-02-29)";
    private static readonly string Six = string.Join('|', Compressed());

    private static readonly Dictionary<string, string> Patterns = new(StringComparer.Ordinal)
    {
        ["date"] = Date,
        ["time"] = Clock,
        ["date-time"] = $"(?:{Date}T{Clock}Z|(?:{InnerYears}-{Days}|{LeapYears}-02-29)T{Clock}{Offset})",
        ["duration"] = $"P(?:[0-9]{{1,4}}D(?:T{ClockSpan})?|T{ClockSpan})",
        ["uuid"] = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        ["email"] = Email,
        ["idn-email"] = Email,
        ["hostname"] = Host,
        ["idn-hostname"] = Host,
        ["ipv4"] = Four,
        ["ipv6"] = $"(?:{Six})",
        ["uri"] = Address,
        ["iri"] = Address,
        ["uri-reference"] = $"(?:{Address}|{UrlRest})",
        ["iri-reference"] = $"(?:{Address}|{UrlRest})",
        ["json-pointer"] = "(?:/(?:[A-Za-z0-9_.-]|~[01])*)*",
        ["base64"] = Base64,
        ["base64url"] = Base64Url,
        ["byte"] = Base64,
        ["char"] = "[\\s\\S]",
    };

    // Patterns of System.Text.Json that are wider than the type.
    private static readonly Dictionary<string, string> Written = new(StringComparer.Ordinal)
    {
        [@"^-?(\d+\.)?\d{2}:\d{2}:\d{2}(\.\d{1,7})?$"] = "-?(?:[1-9][0-9]{0,6}\\.)?(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,7})?",  // TimeSpan
        [@"^\d+(\.\d+){1,3}$"] = "(?:0|[1-9][0-9]{0,8})(?:\\.(?:0|[1-9][0-9]{0,8})){1,3}",  // Version
    };

    private static readonly HashSet<string> OfNumbers =
        [@"^-?(?:0|[1-9]\d*)$", @"^-?(?:0|[1-9]\d*)(?:\.\d+)?$", @"^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$"];

    // Formats that describe the purpose of a text, not its form.
    private static readonly HashSet<string> Free = ["password", "binary", "textarea", "multiline", "html", "markdown", "text", "phone"];

    private static readonly ConcurrentDictionary<string, Automaton> Automata = new(StringComparer.Ordinal);

    public static IEnumerable<string> Names => Patterns.Keys;

    /// <summary>Whether a format does not restrict the form of a text.</summary>
    public static bool IsFree(string format) => Free.Contains(format);

    /// <summary>Whether a pattern is the serializer's for numbers that may also be strings.</summary>
    public static bool IsNumber(string pattern) => OfNumbers.Contains(pattern);

    /// <summary>The texts of a format; null: unknown format.</summary>
    public static Automaton? Find(string format) => Patterns.TryGetValue(format, out string? pattern) ? Compile(pattern) : null;

    /// <summary>The texts of a content encoding; null: unknown encoding.</summary>
    public static Automaton? FindEncoding(string encoding) => encoding switch
    {
        "base64" => Compile(Base64),
        "base64url" => Compile(Base64Url),
        "base16" => Compile("(?:[0-9A-Fa-f]{2})*"),
        "7bit" or "8bit" or "binary" => Automaton.Universal,
        _ => null,
    };

    /// <summary>For the serializer's pattern of a type, the texts that the type can parse; null: another pattern.</summary>
    public static Automaton? FindWritten(string pattern) => Written.TryGetValue(pattern, out string? narrow) ? Compile(narrow) : null;

    private static Automaton Compile(string pattern) => Automata.GetOrAdd(pattern, static pattern => Pattern.Compile(PatternSyntax.Parse($"^(?:{pattern})$"))!);

    // Eight groups, or fewer around "::".
    private static IEnumerable<string> Compressed()
    {
        yield return $"(?:{Hex}:){{7}}{Hex}";
        for (int before = 0; before <= 6; before++)
        {
            string head = before == 0 ? "" : $"{Hex}(?::{Hex}){{{before - 1}}}";
            yield return $"{head}::(?:{Hex}(?::{Hex}){{0,{Math.Max(5 - before, 0)}}})?";
        }
    }
}
