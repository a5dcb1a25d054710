using System.Globalization;
using LlamaKivi.Common;

namespace LlamaKivi.Cli;

/// <summary>An entry of a --kv-cache list: a type, with settings of its own if wanted, such as "kivi2+residual=64+group=16". The signs are valid in file names.</summary>
internal static class KvCacheVariant
{
    /// <summary>Parses an entry. The cache has the entry's type, those of the given settings that the type uses, and all settings of the entry itself.</summary>
    /// <exception cref="UsageException">The type or a setting is unknown, a value is not a number or out of range, or the type does not use a setting of the entry.</exception>
    public static KvCacheParams Parse(string entry, KvCacheParams given)
    {
        KvCacheType type = CommonOptions.Type(entry.Split('+')[0].Trim(), "--kv-cache");
        KvCacheParams cache = given with { TypeK = type, TypeV = type };
        cache.WithoutUnused().Validate();
        cache = Apply(entry, Apply(entry, cache).WithoutUnused());
        try
        {
            cache.Validate();
        }
        catch (ArgumentException e)
        {
            throw new UsageException($"--kv-cache: '{entry}': {Errors.FirstLine(e)}");
        }

        return cache;
    }

    private static KvCacheParams Apply(string entry, KvCacheParams cache)
    {
        foreach (string setting in entry.Split('+', StringSplitOptions.TrimEntries)[1..])
        {
            cache = setting.Split('=', StringSplitOptions.TrimEntries) switch
            {
                ["group", var value] => cache with { Group = Number(value, setting, entry) },
                ["residual", var value] => cache with { Residual = Number(value, setting, entry) },
                ["residual-type", var value] => cache with { ResidualType = CommonOptions.RowType(value, $"--kv-cache: residual-type in '{entry}'") },
                ["sink", var value] => cache with { Sinks = Number(value, setting, entry) },
                ["refined", var value] => cache with { RefinedEighths = Number(value, setting, entry) },
                _ => throw Unknown(setting, entry),
            };
        }

        return cache;
    }

    private static int Number(string value, string setting, string entry) =>
        int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) ? number
            : throw new UsageException($"--kv-cache: '{setting}' in '{entry}' has no whole number from 0 as its value");

    private static UsageException Unknown(string setting, string entry) =>
        new($"--kv-cache: '{setting}' in '{entry}' is no setting; the settings are group=N, residual=N, residual-type=TYPE, sink=N and refined=N, such as kivi2+residual=64");
}
