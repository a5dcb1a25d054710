using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Hosting;
using LlamaKivi.Native;
using LlamaKivi.Server;

namespace LlamaKivi.Cli;

/// <summary>The options of serve, each with its environment variable.</summary>
internal sealed class ServeSettings
{
    private readonly Option<string?> _model = Text("--model", "-m", "GGUF file (default: the included demo model)", "LLAMA_ARG_MODEL");
    private readonly Option<string?> _models = Text("--models", "--models-dir", "Folder of GGUF files, which are loaded when requests ask for them", "LLAMA_ARG_MODELS_DIR");
    private readonly Option<string?> _mostModels = Text("--models-max", null, "Maximum number of models of --models in memory; 0: as many as fit (default: 4)", "LLAMA_ARG_MODELS_MAX");
    private readonly Option<string?> _idle = Text("--models-idle", null, "Seconds without requests after which a model of --models is unloaded (default: 600)", "LLAMA_ARG_MODELS_IDLE");
    private readonly Option<string?> _alias = Text("--alias", "-a", "Name of the model in requests, beside the file's", "LLAMA_ARG_ALIAS");
    private readonly Option<string?> _host = Text("--host", null, "Address to listen on (default: 127.0.0.1)", "LLAMA_ARG_HOST");
    private readonly Option<string?> _port = Text("--port", null, "Port to listen on; 0: any free one (default: 8080)", "LLAMA_ARG_PORT");
    private readonly Option<string?> _key = Text("--api-key", null, "Accepted API keys, separated by commas (default: none is needed)", "LLAMA_API_KEY");
    private readonly Option<string?> _keyFile = Text("--api-key-file", null, "File of accepted API keys, one a line", "LLAMA_ARG_API_KEY_FILE");
    private readonly Option<string?> _context = Text("--ctx-size", "-c", "Capacity of the KV cache in tokens, shared by all requests (default: the model's context)", "LLAMA_ARG_CTX_SIZE");
    private readonly Option<string?> _parallel = Text("--parallel", "-np", "Maximum number of requests that run at once (default: 16)", "LLAMA_ARG_N_PARALLEL");
    private readonly Option<string?> _batch = Text("--batch-size", "-b", "Maximum number of tokens of a step (default: 512)", "LLAMA_ARG_BATCH");
    private readonly Option<string?> _predict = Text("--n-predict", "-n", "Maximum number of generated tokens of a request; -1: the cache's capacity (default: -1)", "LLAMA_ARG_N_PREDICT");
    private readonly Option<string?> _timeout = Text("--timeout", "-to", "Maximum time of a request in seconds (default: 1800)", "LLAMA_ARG_TIMEOUT");
    private readonly Option<string?> _queue = Text("--queue", null, "Maximum number of requests that wait; 0: none (default: 256)", "LLAMA_ARG_QUEUE");
    private readonly Option<string?> _drain = Text("--drain", null, "Seconds that running requests have to finish after SIGTERM (default: 20)", "LLAMA_ARG_DRAIN");
    private readonly Option<string?> _slots = Text("--slot-save-path", null, "Folder of the slots that clients save and restore (default: they cannot)", "LLAMA_ARG_SLOT_SAVE_PATH");
    private readonly Option<string?> _prefixes = Text("--prefix-path", null, "Folder of prompt prefixes that left memory, which survive a restart (default: none)", "LLAMA_ARG_PREFIX_PATH");
    private readonly Option<string?> _ram = Text("--cache-ram", "-cram", "Host memory in MiB for prompt prefixes that left the KV cache; 0: none (default: 256)", "LLAMA_ARG_CACHE_RAM");
    private readonly Option<string?> _type = new("--kv-cache") { Description = $"KV cache type (default: kivi2): {string.Join(", ", KvCacheType.Names)}" };
    private readonly Option<bool> _noMap = new("--no-mmap") { Description = "Read the weights into memory instead of mapping the file, which may then be changed while it is served" };
    private readonly SharedOptions _shared;
    private readonly Dictionary<Option, string> _variables;

    public ServeSettings()
    {
        _shared = new SharedOptions([_type, _noMap]);
        _variables = Own.ToDictionary(option => option, option => option.Description![(option.Description!.LastIndexOf(" [", StringComparison.Ordinal) + 2)..^1]);
    }

    public Option[] All => [.. Own, .. _shared.All];

    private Option[] Own =>
    [
        _model, _models, _mostModels, _idle, _alias, _host, _port, _key, _keyFile, _context, _parallel, _batch, _predict, _timeout, _queue, _drain, _slots, _prefixes, _ram,
    ];

    public (string Host, int Port) Address(ParseResult parsed) => (Value(parsed, _host) ?? "127.0.0.1", Whole(parsed, _port, 0, 65535) ?? 8080);

    public InferenceEngineOptions Engine(ParseResult parsed)
    {
        string path = Value(parsed, _models) is null ? CommonOptions.ModelPath(Value(parsed, _model)) : "";
        (CommonOptions common, ParseResult shared) = (_shared.Common, _shared.Read(parsed));
        ModelParams parameters = common.Parameters(shared, path);
        var options = new InferenceEngineOptions
        {
            ModelPath = path,
            Threads = parameters.Threads,
            GpuLayerCount = parameters.GpuLayerCount,
            RequireGpu = parameters.RequireGpu,
            BatchInvariant = parameters.BatchInvariant,
            LoadMode = shared.GetValue(_noMap) ? LLamaLoadMode.None : LLamaLoadMode.MemoryMap,
            KvCache = Cache(shared),
            ContextSize = (uint?)Whole(parsed, _context, 2, NumberOptions.MostTokens),
            SeqMax = (uint)(Whole(parsed, _parallel, 1, 4096) ?? 16),
            MaxWaiting = Whole(parsed, _queue, 0, 1_000_000) ?? 256,
            DrainTimeout = Seconds(parsed, _drain) ?? TimeSpan.FromSeconds(20),
        };
        if (Whole(parsed, _batch, 1, 1 << 20) is { } batch)
        {
            options.BatchSize = (uint)batch;
        }

        options.PrefixCache.Isolation = Keys(parsed).Length > 1;
        options.PrefixCache.DiskPath = Value(parsed, _prefixes);
        options.PrefixCache.HostBytes = Whole(parsed, _ram, 0, 1 << 30) is { } mebibytes ? (long)mebibytes << 20 : options.PrefixCache.HostBytes;
        if (path.Length > 0)
        {
            // Errors of the file and of the cache come before the server starts.
            using var file = GgufFile.Open(path);
            if (KvCacheFallback.Misfit(file, HasType(shared) ? options.KvCache : KvCacheFallback.Fit(file, options.KvCache, out _)) is { } misfit)
            {
                throw new UsageException(Errors.Words(misfit));
            }

            common.ApplyFit(shared, options);
        }
        else if (shared.GetValue(common.Fit))
        {
            throw new UsageException("--fit and --models are both given; the server estimates the memory of each model of a folder when it loads it. Leave --fit out");
        }

        return options;
    }

    private bool HasType(ParseResult shared) => (shared.GetValue(_type) ?? shared.GetValue(_shared.Common.TypeK) ?? shared.GetValue(_shared.Common.TypeV)) is not null;

    // As with llama.cpp's server, -ctk alone is also the type of the values. Default types that do not fit the model are replaced when it is loaded.
    private KvCacheParams Cache(ParseResult shared)
    {
        CommonOptions common = _shared.Common;
        KvCacheType? both = shared.GetValue(_type) is { } name ? CommonOptions.Type(name, _type.Name) : null;
        KvCacheType? typeK = shared.GetValue(common.TypeK) is { } k ? CommonOptions.Type(k, common.TypeK.Name) : both;
        KvCacheType? typeV = shared.GetValue(common.TypeV) is { } v ? CommonOptions.Type(v, common.TypeV.Name) : both ?? typeK;
        var types = new KvCacheParams();
        types = typeK is { } keys ? types with { TypeK = keys } : types;
        types = typeV is { } values ? types with { TypeV = values } : types;
        KvCacheParams cache = common.Settings(shared, types);
        cache.Validate();
        return cache;
    }

    /// <summary>The folder of --models; null: one model is served.</summary>
    public ModelFolderOptions? Folder(ParseResult parsed)
    {
        int? most = Whole(parsed, _mostModels, 0, 1000);
        TimeSpan? idle = Seconds(parsed, _idle);
        if (Value(parsed, _models) is not { } folder)
        {
            // The environment may be that of several servers.
            return Array.Find([_mostModels, _idle], option => parsed.GetValue(option) is not null) is not { } alone ? null
                : throw new UsageException($"{alone.Name} is given without --models; give a folder of models, or leave it out");
        }

        if (parsed.GetValue(_alias) is not null)
        {
            throw new UsageException("--alias and --models are both given; the models of a folder have the names of their files. Leave --alias out");
        }

        if (parsed.GetValue(_model) is not null)
        {
            throw new UsageException("-m and --models are both given; specify only one");
        }

        if (!Directory.Exists(folder))
        {
            throw new UsageException($"--models is '{folder}', which is no folder; give a folder of GGUF files");
        }

        var options = new ModelFolderOptions { Folder = folder };
        options.MaxLoaded = most is 0 ? int.MaxValue : most ?? options.MaxLoaded;
        options.IdleTimeout = idle ?? options.IdleTimeout;
        return options;
    }

    public Action<LlamaKiviServerOptions> Server(ParseResult parsed)
    {
        string[] keys = Keys(parsed);
        string? slots = Value(parsed, _slots);
        if (slots is not null && !Directory.Exists(slots))
        {
            throw new UsageException($"--slot-save-path is '{slots}', which is no folder; create it first");
        }

        int? predict = Whole(parsed, _predict, -1, int.MaxValue);
        if (predict is 0)
        {
            throw new UsageException($"{_predict.Name} is 0; it must be a whole number of at least 1, or -1 for the cache's capacity");
        }

        string? alias = Value(parsed, _alias);
        TimeSpan? timeout = Seconds(parsed, _timeout);
        TimeSpan? drain = Seconds(parsed, _drain);
        return options =>
        {
            foreach (string key in keys)
            {
                options.ApiKeys.Add(key);
            }

            if (alias is not null)
            {
                options.Aliases.Add(alias);
            }

            options.SlotSavePath = slots;
            options.MaxOutputTokens = predict is > 0 ? predict : null;
            options.RequestTimeout = timeout ?? options.RequestTimeout;
            options.DrainTimeout = drain ?? options.DrainTimeout;
        };
    }

    private string[] Keys(ParseResult parsed)
    {
        string[] keys = [.. (Value(parsed, _key) ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)];
        if (Value(parsed, _keyFile) is { } file)
        {
            string[] lines = [.. Lines(file).Select(line => line.Trim())];
            int wrong = Array.FindIndex(lines, IsUnsendable);
            keys = wrong < 0
                ? [.. keys, .. lines.Where(line => line.Length > 0)]
                : throw new UsageException($"line {wrong + 1} of the {_keyFile.Name} '{file}' has control characters or bytes that are not UTF-8, which no client can send; replace the key");
        }

        if (keys.Length == 0 && (Value(parsed, _key) ?? Value(parsed, _keyFile)) is not null)
        {
            throw new UsageException($"{(Value(parsed, _keyFile) is null ? _key : _keyFile).Name} has no key; give one, or leave it out");
        }

        return keys;
    }

    // Different bytes that are not UTF-8 would be one key.
    private static bool IsUnsendable(string key) => key.Any(c => char.IsControl(c) || c == '\uFFFD');

    private string[] Lines(string file)
    {
        try
        {
            return File.ReadAllLines(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new UsageException($"{_keyFile.Name} is '{file}', which cannot be read; give a file of keys, one a line");
        }
    }

    private static Option<string?> Text(string name, string? alias, string description, string variable) =>
        new(name, alias is null ? [] : [alias]) { Description = $"{description} [{variable}]" };

    // The command line comes before the environment. A variable that is empty is not set.
    private string? Value(ParseResult parsed, Option<string?> option) => parsed.GetValue(option) switch
    {
        null => Environment.GetEnvironmentVariable(_variables[option]) is { Length: > 0 } value ? value : null,
        { } given when string.IsNullOrWhiteSpace(given) => throw SharedOptions.Empty(option),
        { } given => given,
    };

    private int? Whole(ParseResult parsed, Option<string?> option, int least, int most) => Value(parsed, option) is not { } text ? null
        : int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int value) && value >= least && value <= most ? value
        : throw new UsageException(string.Create(CultureInfo.InvariantCulture, $"{option.Name} is {text}; it must be a whole number from {least} to {most}"));

    private TimeSpan? Seconds(ParseResult parsed, Option<string?> option) => Whole(parsed, option, 1, 86400) is { } seconds ? TimeSpan.FromSeconds(seconds) : null;
}
