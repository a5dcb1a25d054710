using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;

namespace LlamaKivi.Cli;

/// <summary>Options with numeric values. Errors are one sentence that states the valid range.</summary>
internal static class NumberOptions
{
    /// <summary>Maximum context size in tokens, as in the engine.</summary>
    public const int MostTokens = 1 << 30;

    /// <summary>An optional integer.</summary>
    public static Option<int?> Whole(string name, string? alias, string description, int least, int most, string? hint = null) =>
        Create<int?>(name, alias, description, argument => Parse(argument, least, most, hint) is { } value ? (int)value : null);

    /// <summary>An integer with a default.</summary>
    public static Option<int> Whole(string name, string? alias, string description, int least, int most, int otherwise)
    {
        Option<int> option = Create<int>(name, alias, description, argument => (int)(Parse(argument, least, most, null) ?? otherwise));
        option.DefaultValueFactory = _ => otherwise;
        return option;
    }

    /// <summary>An optional size in bytes: a whole number with the unit K, M or G (powers of 1024), or without one.</summary>
    public static Option<long?> Size(string name, string description) => Create<long?>(name, null, description, argument =>
    {
        long? bytes = Bytes(name, argument.Tokens[0].Value, out string error);
        if (bytes is null)
        {
            argument.AddError(error);
        }

        return bytes;
    });

    /// <summary>Parses a size in bytes, like <see cref="Size"/>. Null: the text is not a size; the error says what is accepted.</summary>
    public static long? Bytes(string name, string text, out string error)
    {
        error = $"{name} is {text}; it must be a whole number of bytes above 0, or of larger units with K, M or G, such as 64M";
        int shift = text.Length > 0 ? char.ToUpperInvariant(text[^1]) switch { 'K' => 10, 'M' => 20, 'G' => 30, _ => 0 } : 0;
        return long.TryParse(shift > 0 ? text[..^1] : text, NumberStyles.None, CultureInfo.InvariantCulture, out long number) && number > 0 && number <= long.MaxValue >> shift
            ? number << shift
            : null;
    }

    /// <summary>An optional 32-bit seed.</summary>
    public static Option<uint?> Seed(string name, string? alias, string description) =>
        Create<uint?>(name, alias, description, argument => Parse(argument, 0, uint.MaxValue, "omit it for a random seed") is { } value ? (uint)value : null);

    /// <summary>A real number from <paramref name="least"/> to <paramref name="most"/>, inclusive.</summary>
    public static Option<float> Real(string name, string description, float least, float most, float otherwise)
    {
        Option<float> option = Create<float>(name, null, description, argument =>
        {
            string text = argument.Tokens[0].Value;
            if (float.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out float value) && value >= least && value <= most)
            {
                return value;
            }

            argument.AddError(string.Create(CultureInfo.InvariantCulture, $"{name} is {text}; it must be a number {Range(least, most, float.MaxValue)}"));
            return otherwise;
        });
        option.DefaultValueFactory = _ => otherwise;
        return option;
    }

    /// <summary>Validates a context size computed from options.</summary>
    /// <param name="tokens">Context size in tokens.</param>
    /// <param name="options">Names of the options.</param>
    public static uint ContextSize(long tokens, string options) => tokens <= MostTokens
        ? (uint)tokens
        : throw new UsageException($"{options} need a context of {tokens} tokens; the maximum is {MostTokens}");

    private static Option<T> Create<T>(string name, string? alias, string description, Func<ArgumentResult, T> parse) =>
        new(name, alias is null ? [] : [alias]) { Description = description, CustomParser = parse };

    private static long? Parse(ArgumentResult argument, long least, long most, string? hint)
    {
        string text = argument.Tokens[0].Value;
        if (long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long value) && value >= least && value <= most)
        {
            return value;
        }

        string name = argument.Parent is OptionResult { Option: var option } ? option.Aliases.FirstOrDefault() ?? option.Name : "the number";
        argument.AddError($"{name} is {text}; it must be a whole number {Range(least, most, int.MaxValue)}{(hint is null ? "" : $", or {hint}")}");
        return null;
    }

    private static string Range<T>(T least, T most, T boundless)
        where T : IFormattable, IEquatable<T> => most.Equals(boundless) ? FormattableString.Invariant($"of at least {least}") : FormattableString.Invariant($"from {least} to {most}");
}
