using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>Options shared by several commands.</summary>
internal sealed class CommonOptions
{
    /// <summary>Maximum number of tokens in a benchmark, whose inputs are allocated up front.</summary>
    public const int MostListed = 1 << 24;

    /// <summary>Part of the help text of --kv-cache lists.</summary>
    public const string VariantHint = "a type can have settings of its own: kivi2+residual=64";

    public Option<string?> Model { get; } = new("--model", "-m") { Description = "GGUF file (default: the demo model)" };

    public Option<int?> GpuLayers { get; } = NumberOptions.Whole("--gpu-layers", "-ngl", "Number of layers on the GPU, counted from the last; -1: all; 0: none (default: all if a GPU is usable)", -1, int.MaxValue);

    public Option<bool> Fit { get; } = new("--fit") { Description = "Choose layers on the GPU (unless -ngl is 0 or more), the context size and the number of sequences that fit in memory, and report them" };

    public Option<int?> Threads { get; } = NumberOptions.Whole("--threads", "-t", "Threads (default: one per processor that the process may use)", 1, 1024);

    public Option<bool> BatchInvariant { get; } = new("--batch-invariant") { Description = "Make the GPU, like the CPU, compute the same bits whatever else is in the batch and however a text is divided into calls; slower" };

    public Option<string?> Synthetic { get; } = new("--synthetic") { Description = $"Measure a model shape with random weights instead of a file: {string.Join(", ", SyntheticModel.Names)}" };

    public Option<string> Weights { get; } = new("--weights") { Description = "Weight type of --synthetic: f16, q8_0 or q4_k_m", DefaultValueFactory = _ => "f16" };

    public Option<int> Group { get; } = NumberOptions.Whole("--kv-group", null, "Tokens per group of quantized keys: 16, 32, 64 or 128; 0: the type's own", 0, 128, 0);

    public Option<int?> Residual { get; } = NumberOptions.Whole("--kv-residual", null, "Number of most recent tokens that are not quantized; 0: none, for types of llama.cpp (default: 128; types of llama.cpp: 0)", 0, 65536);

    public Option<string?> ResidualType { get; } = new("--kv-residual-type") { Description = "Type of the most recent tokens: f16 or q8_0 (default: q8_0; types of llama.cpp: f16; *-paper: always f16)" };

    public Option<int?> Sinks { get; } = NumberOptions.Whole("--kv-sink", null, "Number of first tokens kept in 16 bits (default: 4; *-paper and types of llama.cpp: 0)", 0, 128);

    public Option<int?> Refined { get; } = NumberOptions.Whole("--kv-refined", null, "Key channels of kivi2 and kivi3 with 4 bits, in eighths of the head, 0 to 8 (default: 3; kivi3: 4)", 0, 8);

    public Option<int?> Undo { get; } = NumberOptions.Whole("--kv-undo", null, "Number of tokens by which a sequence can go back exactly, 0 to 64 (default: 16)", 0, 64);

    public Option<long?> Memory { get; } = NumberOptions.Size("--kv-memory", "Maximum memory of the KV cache, such as 64M or 2G (default: no limit beside the context size)");

    public Option<string?> TypeK { get; } = new("--cache-type-k", "-ctk") { Description = "KV cache type of the keys; overrides --kv-cache" };

    public Option<string?> TypeV { get; } = new("--cache-type-v", "-ctv") { Description = "KV cache type of the values; overrides --kv-cache" };

    /// <summary>Options of every command that opens a context.</summary>
    public Option[] Context => [Threads, GpuLayers, BatchInvariant, .. CacheSettings];

    /// <summary>Options of the KV cache beside its type.</summary>
    public Option[] CacheSettings => [Group, Residual, ResidualType, Sinks, Refined, Undo, Memory];

    public Option<bool> Json { get; } = new("--json") { Description = "Print JSON" };

    public static string ModelPath(string? given) => given ?? DemoModel.Find();

    /// <summary>Model parameters from --model, --threads and --gpu-layers. An explicit --gpu-layers requires a usable GPU; the default uses a GPU if there is one.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="path">Path that replaces --model.</param>
    public ModelParams Parameters(ParseResult parsed, string? path = null)
    {
        int? layers = parsed.GetValue(GpuLayers);
        return new ModelParams(path ?? ModelPath(parsed.GetValue(Model)))
        {
            Threads = parsed.GetValue(Threads),
            GpuLayerCount = layers ?? (NativeEngine.TryDescribeDevice(out _, out _) ? -1 : 0),
            RequireGpu = true,
            BatchInvariant = parsed.GetValue(BatchInvariant),
        };
    }

    /// <summary>Creates the model of --synthetic; null without the option.</summary>
    public SyntheticModel? CreateSynthetic(ParseResult parsed) => (parsed.GetValue(Synthetic), parsed.GetValue(Model)) switch
    {
        (null, _) => null,
        (_, not null) => throw new UsageException("-m and --synthetic are both given; specify only one"),
        ({ } name, _) when !SyntheticModel.Names.Contains(name, StringComparer.Ordinal) => throw new UsageException($"--synthetic is '{name}'; the shapes are {string.Join(", ", SyntheticModel.Names)}"),
        ({ } name, _) => parsed.GetValue(Weights) is { } weights && SyntheticModel.WeightTypes.Contains(weights, StringComparer.Ordinal)
            ? SyntheticModel.Create(name, weights)
            : throw new UsageException($"--weights is '{parsed.GetValue(Weights)}'; the types are f16, q8_0 and q4_k_m"),
    };

    /// <summary>A type of ring rows.</summary>
    public static KvCacheType RowType(string name, string setting) =>
        KvCacheType.TryParse(name, out KvCacheType type) ? type : throw new UsageException($"{setting} is '{name}'; it must be f16 or q8_0");

    /// <summary>Parses a type of the KV cache; the error names the option.</summary>
    public static KvCacheType Type(string name, string option) =>
        KvCacheType.TryParse(name, out KvCacheType type) ? type : throw new UsageException($"{option}: '{name}' is not a KV cache type; use one of: {string.Join(", ", KvCacheType.Names)}");

    /// <summary>A cache with the settings of the options; they are not validated.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="cache">The cache's types.</param>
    public KvCacheParams Settings(ParseResult parsed, KvCacheParams cache) => cache with
    {
        Group = parsed.GetValue(Group),
        Residual = parsed.GetValue(Residual),
        Sinks = parsed.GetValue(Sinks),
        RefinedEighths = parsed.GetValue(Refined),
        ResidualType = parsed.GetValue(ResidualType) is { } rows ? RowType(rows, ResidualType.Name) : null,
        Undo = parsed.GetValue(Undo),
        MemoryBudget = parsed.GetValue(Memory),
    };

    /// <summary>KV cache of a single-type option. A setting that the type does not use is an error.</summary>
    public KvCacheParams Cache(ParseResult parsed, Option<string> type)
    {
        KvCacheType both = Type(parsed.GetValue(type)!, type.Name);
        KvCacheParams cache = Settings(parsed, new KvCacheParams { TypeK = both, TypeV = both });
        cache.Validate();
        return cache;
    }

    /// <summary>KV cache of a single-type option, --cache-type-k and --cache-type-v. A default type that does not fit the model is replaced, with a message on stderr.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="type">The option.</param>
    /// <param name="model">The model's file.</param>
    /// <param name="fallback">Description of the replacement; null: none.</param>
    public KvCacheParams SelectedCache(ParseResult parsed, Option<string> type, string model, out string? fallback)
    {
        fallback = null;
        if ((parsed.GetValue(TypeK), parsed.GetValue(TypeV)) is var (typeK, typeV) && (typeK ?? typeV) is not null)
        {
            KvCacheType both = Type(parsed.GetValue(type)!, type.Name);
            KvCacheParams asked = Settings(parsed, new KvCacheParams { TypeK = typeK is null ? both : Type(typeK, TypeK.Name), TypeV = typeV is null ? both : Type(typeV, TypeV.Name) });
            asked.Validate();
            return asked;
        }

        KvCacheParams cache = Cache(parsed, type);
        if (!IsDefault(parsed, type))
        {
            return cache;
        }

        using GgufFile file = GgufFile.Open(model);
        cache = KvCacheFallback.Fit(file, cache, out fallback);
        fallback = fallback is null ? null : Errors.Words(fallback);
        if (fallback is not null)
        {
            Console.Error.WriteLine($"llama-kivi: {fallback}");
        }

        return cache;
    }

    /// <summary>Parses a list such as "f16,kivi2,kivi2+residual=64"; all entries are validated before anything is loaded. Options apply to the types that use them.</summary>
    public List<(string Name, KvCacheParams Params)> Caches(ParseResult parsed, string list)
    {
        string[] names = list.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        if (names.Length == 0)
        {
            throw new UsageException($"--kv-cache is empty; use one or more of: {string.Join(", ", KvCacheType.Names)}");
        }

        KvCacheParams given = Settings(parsed, new KvCacheParams());
        List<(string Name, KvCacheParams Params)> caches = [.. names.Select(name => (name, KvCacheVariant.Parse(name, given)))];
        CheckUsed(given, [.. caches.Select(cache => cache.Params)]);
        return caches;
    }

    // An option that no type of the list uses is an error; the message names the first type.
    private static void CheckUsed(KvCacheParams given, KvCacheParams[] caches)
    {
        KvCacheParams first = new() { TypeK = caches[0].TypeK, TypeV = caches[0].TypeV };
        (bool IsUsed, KvCacheParams Alone)[] options =
        [
            (Array.Exists(caches, cache => cache.Group == given.Group), first with { Group = given.Group }),
            (Array.Exists(caches, cache => cache.Residual == given.Residual), first with { Residual = given.Residual }),
            (Array.Exists(caches, cache => cache.Sinks == given.Sinks), first with { Sinks = given.Sinks }),
            (Array.Exists(caches, cache => cache.RefinedEighths == given.RefinedEighths), first with { RefinedEighths = given.RefinedEighths }),
            (Array.Exists(caches, cache => cache.ResidualType == given.ResidualType), first with { ResidualType = given.ResidualType }),
        ];
        foreach ((_, KvCacheParams alone) in options.Where(option => !option.IsUsed))
        {
            alone.Validate();
        }
    }

    /// <summary>Removes default types that do not fit the model, with a message on stderr; explicit types stay.</summary>
    public static List<(string Name, KvCacheParams Params)> Fitting(
        ParseResult parsed, Option<string> types, string model, List<(string Name, KvCacheParams Params)> caches)
    {
        if (!IsDefault(parsed, types))
        {
            return caches;
        }

        using GgufFile file = GgufFile.Open(model);
        var reasons = caches.Select(cache => (cache.Name, Reason: KvCacheFallback.Misfit(file, cache.Params))).Where(cache => cache.Reason is not null).ToList();
        if (reasons.Count == 0)
        {
            return caches;
        }

        List<(string Name, KvCacheParams Params)> fitting = [.. caches.Where(cache => !reasons.Exists(left => left.Name == cache.Name))];
        if (fitting.Count == 0 && KvCacheFallback.Fit(file, caches[0].Params, out string? reason) is var other && reason is not null)
        {
            Console.Error.WriteLine($"llama-kivi: {Errors.Words(reason)}");
            return [(other.TypeK.ToString(), other)];
        }

        foreach ((string name, string? why) in fitting.Count > 0 ? reasons : [])
        {
            Console.Error.WriteLine($"llama-kivi: {name} is skipped ({Errors.Words(why!)})");
        }

        return fitting.Count > 0 ? fitting : caches;
    }

    private static bool IsDefault(ParseResult parsed, Option option) => parsed.GetResult(option) is null or { Implicit: true };

    /// <summary>Applies --fit.</summary>
    public void ApplyFit(ParseResult parsed, ModelParams parameters)
    {
        if (!parsed.GetValue(Fit))
        {
            return;
        }

        using GgufFile file = GgufFile.Open(parameters.ModelPath);
        Terminal.Error.WriteLine($"--fit: {MemoryFit.Apply(file, parameters) ?? MemoryFit.Describe(file, parameters)}");
    }

    /// <summary>Number of tokens computed at once; GPUs need more for full speed.</summary>
    public static uint MicroBatch(int gpuLayers) => gpuLayers == 0 ? 512u : 2048u;

    /// <summary>Description of the processor in use, CPU or GPU.</summary>
    public static string Processor(int gpuLayers) => gpuLayers == 0 ? NativeEngine.CpuDescription : $"{NativeEngine.DescribeDevice().Name}; {NativeEngine.CpuDescription}";

    /// <summary>Parses a list of positive numbers such as "128,512".</summary>
    public static int[] Counts(string list, string option, int least = 1, int most = MostListed) =>
        [.. list.Split(',', StringSplitOptions.TrimEntries).Select(text =>
            int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n >= least && n <= most
                ? n
                : throw new UsageException($"{option}: '{text}' is not a number from {least} to {most}"))];

    public static void Add(Command command, params Option[] options)
    {
        foreach (Option option in options)
        {
            command.Options.Add(option);
        }
    }
}
