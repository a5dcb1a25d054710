using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace LlamaKivi.Tokenization;

/// <summary>
/// Splits text into pieces that merges never cross. Each regular expression splits every piece of the previous one into
/// its matches and the gaps between them.
/// </summary>
internal sealed partial class PreTokenizer
{
    private static readonly PreTokenizer Llama3 = new(ignoreMerges: true, addBos: true, Llama3Regex());
    private static readonly PreTokenizer Llama3Merges = new(ignoreMerges: false, addBos: false, Llama3Regex());
    private static readonly PreTokenizer Tekken = new(ignoreMerges: true, addBos: true, TekkenRegex());
    private static readonly PreTokenizer Qwen2 = new(ignoreMerges: false, addBos: false, Qwen2Regex());
    private static readonly PreTokenizer Gpt2 = new(ignoreMerges: false, addBos: false, Gpt2Regex());
    private static readonly PreTokenizer Digits = new(ignoreMerges: false, addBos: false, DigitRegex(), Gpt2Regex());
    private static readonly PreTokenizer Falcon = new(
        ignoreMerges: false, addBos: false, FalconPunctuationRegex(), Gpt2Regex(), ThreeDigitsRegex());

    private readonly Regex[] _expressions;

    private PreTokenizer(bool ignoreMerges, bool addBos, params Regex[] expressions)
    {
        IgnoreMerges = ignoreMerges;
        AddBos = addBos;
        _expressions = expressions;
    }

    /// <summary>Pre-tokenizer of files that name none or an unknown one.</summary>
    public static PreTokenizer Default { get; } = new(
        ignoreMerges: false, addBos: false, PunctuationRegex(), Gpt2Regex(), NumberRegex(), ThreeDigitsRegex());

    /// <summary>Whether a piece that is in the vocabulary becomes that token without merging.</summary>
    public bool IgnoreMerges { get; }

    /// <summary>Whether BOS is added if the file does not specify it.</summary>
    public bool AddBos { get; }

    /// <summary>Pre-tokenizer for a value of tokenizer.ggml.pre; null if the value is unknown.</summary>
    public static PreTokenizer? Find(string name) => name switch
    {
        "llama-bpe" or "llama-v3" or "llama3" or "falcon3" => Llama3,
        "dbrx" or "smaug-bpe" => Llama3Merges,
        "tekken" => Tekken,
        "qwen2" or "deepseek-r1-qwen" or "stablelm2" => Qwen2,
        "gpt-2" or "mpt" or "olmo" or "phi-2" or "jais" or "roberta-bpe" => Gpt2,
        "smollm" or "starcoder" or "refact" or "command-r" or "codeshell" or "exaone" => Digits,
        "falcon" => Falcon,
        "default" => Default,
        _ => null,
    };

    /// <summary>Pieces of a text, in order and without gaps.</summary>
    public List<Range> Split(string text)
    {
        // The expressions are defined on code points, but Regex matches UTF-16 units. Text beyond the BMP is projected to one
        // unit of the same character class per code point, and the ranges are mapped back.
        (string projection, int[]? starts) = Project(text);
        List<Range> pieces = [0..projection.Length];
        foreach (Regex expression in _expressions)
        {
            pieces = Split(projection, pieces, expression);
        }

        if (starts is not null)
        {
            for (int i = 0; i < pieces.Count; i++)
            {
                pieces[i] = starts[pieces[i].Start.Value]..starts[pieces[i].End.Value];
            }
        }

        return pieces;
    }

    private static List<Range> Split(string text, List<Range> pieces, Regex expression)
    {
        var split = new List<Range>(Math.Max(pieces.Count, text.Length / 4));
        foreach (Range piece in pieces)
        {
            int start = piece.Start.Value;
            int done = start;
            foreach (ValueMatch match in expression.EnumerateMatches(text.AsSpan(piece)))
            {
                int from = start + match.Index;
                if (from > done)
                {
                    split.Add(done..from);
                }

                done = from + match.Length;
                split.Add(from..done);
            }

            if (done < piece.End.Value)
            {
                split.Add(done..piece.End.Value);
            }
        }

        return split;
    }

    private static (string Projection, int[]? Starts) Project(string text)
    {
        if (!text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF'))
        {
            return (text, null);
        }

        var projection = new StringBuilder(text.Length);
        var starts = new List<int>(text.Length + 1); // [projected unit] -> index in the text, plus one for the end
        int index = 0;
        foreach (Rune rune in text.EnumerateRunes())
        {
            starts.Add(index);
            projection.Append(rune.IsBmp ? (char)rune.Value : Representative(Rune.GetUnicodeCategory(rune)));
            index += rune.Utf16SequenceLength; // an unpaired surrogate enumerates as U+FFFD, also one unit
        }

        starts.Add(index);
        return (projection.ToString(), [.. starts]);
    }

    // One character per category that occurs literally in no expression.
    private static char Representative(UnicodeCategory category) => category switch
    {
        UnicodeCategory.UppercaseLetter => '\u0391',
        UnicodeCategory.LowercaseLetter => '\u03B1',
        UnicodeCategory.TitlecaseLetter => '\u01C5',
        UnicodeCategory.ModifierLetter => '\u02B0',
        UnicodeCategory.OtherLetter => '\u4E00',
        UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark => '\u0300',
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => '\u0660',
        >= UnicodeCategory.ConnectorPunctuation and <= UnicodeCategory.OtherPunctuation => '\u2016',
        _ => '\uFFFD',
    };

    [GeneratedRegex(@"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")]
    private static partial Regex Llama3Regex();

    [GeneratedRegex(@"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")]
    private static partial Regex Qwen2Regex();

    [GeneratedRegex(@"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")]
    private static partial Regex TekkenRegex();

    [GeneratedRegex(@"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")]
    private static partial Regex Gpt2Regex();

    [GeneratedRegex(@"\p{N}")]
    private static partial Regex DigitRegex();

    [GeneratedRegex(@"\p{N}+")]
    private static partial Regex NumberRegex();

    [GeneratedRegex("[0-9][0-9][0-9]")]
    private static partial Regex ThreeDigitsRegex();

    [GeneratedRegex(@"[\p{P}$+<=>^~|]+")]
    private static partial Regex PunctuationRegex();

    [GeneratedRegex(@"[\p{P}$+<=>^~|`]+")]
    private static partial Regex FalconPunctuationRegex();
}
