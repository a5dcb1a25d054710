using System.CommandLine;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Options;

/// <summary>--kv-group, --kv-residual and --kv-sink, and how cache types are named.</summary>
internal sealed class KvCacheOptions
{
    private readonly Option<int> _group = new("--kv-group")
    {
        Description = "G, tokens per key group: 16, 32, 64 or 128.",
        HelpName = "G",
        DefaultValueFactory = _ => 32,
    };

    private readonly Option<int> _residual = new("--kv-residual")
    {
        Description = "R, youngest tokens kept in full precision; a multiple of G.",
        HelpName = "R",
        DefaultValueFactory = _ => 128,
    };

    private readonly Option<int?> _sinks = new("--kv-sink")
    {
        Description = "First tokens kept in full precision. Default: 4 for kivi2 and kivi4, otherwise 0.",
        HelpName = "S",
    };

    public KvCacheOptions(Command command)
    {
        command.Add(_group);
        command.Add(_residual);
        command.Add(_sinks);
    }

    public static Option<string> CreateTypeList() => new("--kv-cache")
    {
        Description = "KV cache types, separated by commas.",
        HelpName = "TYPES",
        DefaultValueFactory = _ => "f16,kivi2",
    };

    public static IReadOnlyList<lk_cache_type> ParseTypeList(string names)
    {
        List<lk_cache_type> types =
            [.. names.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries).Select(ParseType).Distinct()];
        return types.Count > 0 ? types : throw CliException.Usage($"--kv-cache is empty; there are: {string.Join(", ", KvCacheTypes.Names)}");
    }

    public static lk_cache_type ParseType(string name)
    {
        try
        {
            return KvCacheTypes.Parse(name);
        }
        catch (ArgumentException e)
        {
            throw CliException.Usage(CommandRunner.Message(e));
        }
    }

    public static string Name(lk_cache_type type) => NativeEngine.CacheTypeName(type) ?? type.ToString();

    public static string Name(KvCacheParams cache) =>
        cache.TypeK == cache.TypeV ? Name(cache.TypeK) : $"{Name(cache.TypeK)}/{Name(cache.TypeV)}";

    public KvCacheParams Read(ParseResult parsed, lk_cache_type typeK, lk_cache_type typeV)
    {
        int group = parsed.GetValue(_group);
        int residual = parsed.GetValue(_residual);
        int? sinks = parsed.GetValue(_sinks);
        if (group is not (16 or 32 or 64 or 128))
        {
            throw CliException.Usage($"--kv-group is {group}; it must be 16, 32, 64 or 128");
        }

        if (residual <= 0 || residual % group != 0)
        {
            throw CliException.Usage(
                $"--kv-residual is {residual}; it must be a positive multiple of --kv-group ({group}), such as {Math.Max(1, residual / group) * group}");
        }

        if (sinks is < 0 || sinks > group)
        {
            throw CliException.Usage($"--kv-sink is {sinks}; it must be 0 to --kv-group ({group})");
        }

        return new KvCacheParams { TypeK = typeK, TypeV = typeV, Group = group, Residual = residual, Sinks = sinks };
    }
}
