using System.Globalization;
using LlamaKivi.Common;
using Microsoft.Extensions.Options;

namespace LlamaKivi.Hosting;

/// <summary>Checks engine options when the host starts.</summary>
/// <param name="name">Name of the options.</param>
/// <param name="section">Path of the configuration section, which begins each message; null: set by code.</param>
internal sealed class InferenceEngineOptionsValidator(string? name, string? section) : IValidateOptions<InferenceEngineOptions>
{
    public ValidateOptionsResult Validate(string? optionsName, InferenceEngineOptions options)
    {
        if (!string.Equals(optionsName ?? "", name ?? "", StringComparison.Ordinal))
        {
            return ValidateOptionsResult.Skip;
        }

        string[] errors = [.. Errors(options).Select(error => section is null ? error : $"{section}:{error}")];
        return errors.Length == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(errors);
    }

    /// <summary>What is wrong with options; each message begins with the option's name.</summary>
    public static IEnumerable<string> Errors(InferenceEngineOptions options)
    {
        if (string.IsNullOrWhiteSpace(options.ModelPath))
        {
            yield return $"{nameof(options.ModelPath)} is not set; give the path of a GGUF file.";
        }
        else if (!File.Exists(options.ModelPath))
        {
            yield return $"{nameof(options.ModelPath)} is '{options.ModelPath}', which {(Directory.Exists(options.ModelPath) ? "is a folder" : "does not exist")}; give the path of a GGUF file.";
        }

        if (CacheError(options) is { } cache)
        {
            yield return cache;
        }

        if (options.ContextSize == 1)
        {
            yield return $"{nameof(options.ContextSize)} is 1, which holds no token of an answer; it must be 2 or more.";
        }

        if (options.SeqMax == 0)
        {
            yield return $"{nameof(options.SeqMax)} is 0; at least one request must run.";
        }

        if (options.MaxWaiting < 0)
        {
            yield return $"{nameof(options.MaxWaiting)} is {options.MaxWaiting}; it must be 0 or more.";
        }

        if (!(options.Watermark > 0 && options.Watermark <= 1))
        {
            yield return Text($"{nameof(options.Watermark)} is {options.Watermark}; it must be above 0 and at most 1.");
        }

        if (options.StallTimeout <= TimeSpan.Zero)
        {
            yield return Text($"{nameof(options.StallTimeout)} is {options.StallTimeout}; it must be above zero.");
        }

        if (options.DrainTimeout < TimeSpan.Zero)
        {
            yield return Text($"{nameof(options.DrainTimeout)} is {options.DrainTimeout}; it must be zero or more.");
        }

        if (options.EmbeddingContextSize == 0)
        {
            yield return $"{nameof(options.EmbeddingContextSize)} is 0; it must be above 0.";
        }

        PrefixCacheOptions prefixes = options.PrefixCache;
        if (prefixes.MaxEntries < 0)
        {
            yield return $"{nameof(options.PrefixCache)}:{nameof(prefixes.MaxEntries)} is {prefixes.MaxEntries}; it must be 0 or more.";
        }

        if (!(prefixes.MaxShare >= 0 && prefixes.MaxShare <= 1))
        {
            yield return Text($"{nameof(options.PrefixCache)}:{nameof(prefixes.MaxShare)} is {prefixes.MaxShare}; it must be from 0 to 1.");
        }

        if (prefixes.DiskBytes < 0)
        {
            yield return $"{nameof(options.PrefixCache)}:{nameof(prefixes.DiskBytes)} is {prefixes.DiskBytes}; it must be 0 or more.";
        }

        if (File.Exists(prefixes.DiskPath))
        {
            yield return $"{nameof(options.PrefixCache)}:{nameof(prefixes.DiskPath)} is '{prefixes.DiskPath}', which is a file; give the path of a folder.";
        }

        if (prefixes.MarkBytes < 0)
        {
            yield return $"{nameof(options.PrefixCache)}:{nameof(prefixes.MarkBytes)} is {prefixes.MarkBytes}; it must be 0 or more.";
        }

        if (prefixes.HostBytes < 0)
        {
            yield return $"{nameof(options.PrefixCache)}:{nameof(prefixes.HostBytes)} is {prefixes.HostBytes}; it must be 0 or more.";
        }
    }

    private static string? CacheError(InferenceEngineOptions options)
    {
        try
        {
            ContextOptionsFactory.Cache(options, options.KvCache).Validate();
            return null;
        }
        catch (ArgumentException e)
        {
            return ErrorText.Of(e).Replace($"{nameof(options.KvCache)}.", $"{nameof(options.KvCache)}:", StringComparison.Ordinal);
        }
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
