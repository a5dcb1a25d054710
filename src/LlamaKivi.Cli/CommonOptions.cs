using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>Options several commands have.</summary>
internal sealed class CommonOptions
{
    private const string DefaultModel = "kivi-demo-llama-37m-q4_k_m.gguf";

    public Option<string?> Model { get; } = new("--model", "-m") { Description = "GGUF file (default: the demo model that comes along)" };

    public Option<int?> GpuLayers { get; } = new("--gpu-layers", "-ngl") { Description = "Layers that the GPU computes, the last ones; -1: all; 0: none (default: all if a GPU is usable)" };

    public Option<bool> Fit { get; } = new("--fit") { Description = "Lower the context, or else the sequences, to what fits in memory, and say so" };

    public Option<int?> Threads { get; } = new("--threads", "-t") { Description = "Threads (default: one per processor)" };

    public Option<string?> Synthetic { get; } = new("--synthetic") { Description = $"Measure a shape with random weights instead of a file: {string.Join(", ", SyntheticModel.Names)}" };

    public Option<string> Weights { get; } = new("--weights") { Description = "Weights of --synthetic: f16, q8_0 or q4_k_m", DefaultValueFactory = _ => "f16" };

    public Option<int> Group { get; } = new("--kv-group") { Description = "Tokens a group of quantized keys spans: 16, 32, 64 or 128", DefaultValueFactory = _ => 32 };

    public Option<int> Residual { get; } = new("--kv-residual") { Description = "Youngest tokens kept in full precision", DefaultValueFactory = _ => 128 };

    public Option<int?> Sinks { get; } = new("--kv-sink") { Description = "First tokens kept in full precision (default: 4; *-paper: 0)" };

    public Option<bool> Json { get; } = new("--json") { Description = "Print JSON" };

    public static string ModelPath(string? given)
    {
        if (given is not null)
        {
            return given;
        }

        string path = Path.Combine(AppContext.BaseDirectory, "models", DefaultModel);
        return File.Exists(path) ? path : throw new UsageException($"the demo model is not at {path}; name a GGUF file with -m");
    }

    /// <summary>What --model, --threads and --gpu-layers say. Layers asked for are an error without a usable GPU; by default all are on it if there is one.</summary>
    /// <param name="parsed">The command line.</param>
    /// <param name="path">Another model than --model.</param>
    public ModelParams Parameters(ParseResult parsed, string? path = null)
    {
        int? layers = parsed.GetValue(GpuLayers);
        return new ModelParams(path ?? ModelPath(parsed.GetValue(Model)))
        {
            Threads = Positive(parsed.GetValue(Threads), "-t"),
            GpuLayerCount = layers ?? (NativeEngine.TryDescribeDevice(out _, out _) ? -1 : 0),
            RequireGpu = true,
        };
    }

    /// <summary>The file that --synthetic asks for; null without it.</summary>
    public SyntheticModel? CreateSynthetic(ParseResult parsed) => (parsed.GetValue(Synthetic), parsed.GetValue(Model)) switch
    {
        (null, _) => null,
        (_, not null) => throw new UsageException("-m and --synthetic are both given; give one"),
        ({ } name, _) => SyntheticModel.Create(name, parsed.GetValue(Weights)!),
    };

    public KvCacheParams Cache(ParseResult parsed, string typeK, string typeV)
    {
        var cache = new KvCacheParams
        {
            TypeK = KvCacheTypes.Parse(typeK),
            TypeV = KvCacheTypes.Parse(typeV),
            Group = parsed.GetValue(Group),
            Residual = parsed.GetValue(Residual),
            Sinks = parsed.GetValue(Sinks),
        };
        try
        {
            cache.Validate();
            return cache;
        }
        catch (ArgumentException e)
        {
            // The API names its properties; here they are options.
            throw new UsageException(Errors.FirstLine(e)
                .Replace("KvCache.Group", Group.Name, StringComparison.Ordinal)
                .Replace("KvCache.Residual", Residual.Name, StringComparison.Ordinal)
                .Replace("KvCache.Sinks", Sinks.Name, StringComparison.Ordinal));
        }
    }

    /// <summary>Reads a list such as "f16,kivi2"; every type is checked before anything is loaded.</summary>
    public List<(string Name, KvCacheParams Params)> Caches(ParseResult parsed, string list)
    {
        string[] names = list.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
        return names.Length > 0 ? [.. names.Select(name => (name, Cache(parsed, name, name)))] : throw new UsageException("--kv-cache names no type");
    }

    /// <summary>Does what --fit says.</summary>
    public void ApplyFit(ParseResult parsed, ModelParams parameters)
    {
        if (!parsed.GetValue(Fit))
        {
            return;
        }

        using GgufFile file = GgufFile.Open(parameters.ModelPath);
        if (MemoryFit.Apply(file, parameters) is { } change)
        {
            Terminal.Error.WriteLine($"--fit: {change}");
        }
    }

    /// <summary>Tokens computed at once: a GPU wants more of them.</summary>
    public static uint MicroBatch(int gpuLayers) => gpuLayers == 0 ? 512u : 2048u;

    /// <summary>What computes: the processor, or the GPU.</summary>
    public static string Processor(int gpuLayers) => gpuLayers == 0 ? NativeEngine.CpuDescription : $"{NativeEngine.DescribeDevice().Name}; {NativeEngine.CpuDescription}";

    public static int Positive(int value, string option) =>
        value > 0 ? value : throw new UsageException($"{option} is {value}; it must be at least 1");

    /// <summary>Reads a list such as "128,512" of numbers above 0.</summary>
    public static int[] Counts(string list, string option) =>
        [.. list.Split(',', StringSplitOptions.TrimEntries).Select(text =>
            int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int n) && n > 0
                ? n
                : throw new UsageException($"{option}: '{text}' is no number of at least 1"))];

    public static int? Positive(int? value, string option) => value is null ? null : Positive(value.Value, option);

    public static void Add(Command command, params Option[] options)
    {
        foreach (Option option in options)
        {
            command.Options.Add(option);
        }
    }
}
