using System.CommandLine;
using System.Text;
using LlamaKivi.Cli.Options;
using LlamaKivi.Cli.Output;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli.Commands;

/// <summary>Continues a prompt.</summary>
internal static class RunCommand
{
    public static Command Create()
    {
        Option<string?> model = ModelOption.Create();
        Option<string?> prompt = new("--prompt", "-p") { Description = "Text to continue; special tokens written out in it are parsed.", HelpName = "TEXT" };
        Option<string?> file = new("--file", "-f") { Description = "File with the text to continue.", HelpName = "FILE" };
        Option<int> count = new("--n-predict", "-n") { Description = "Most tokens to write; -1: until the text ends.", HelpName = "N", DefaultValueFactory = _ => 128 };
        Option<int?> contextSize = new("--ctx-size", "-c") { Description = "Tokens the context holds. Default: what the model was trained for.", HelpName = "N" };
        Option<int?> threads = NumberOptions.CreateThreads();
        Option<string> cache = new("--kv-cache") { Description = "KV cache type.", HelpName = "TYPE", DefaultValueFactory = _ => "kivi2" };
        Option<string?> keys = new("--cache-type-k") { Description = "Type of the keys. Default: --kv-cache.", HelpName = "TYPE" };
        Option<string?> values = new("--cache-type-v") { Description = "Type of the values. Default: --kv-cache.", HelpName = "TYPE" };
        Option<bool> json = new("--json") { Description = "Write one JSON object instead of text." };
        var command = new Command("run", "Continue a prompt.") { model, prompt, file, count, contextSize, threads, cache, keys, values, json };
        var cacheOptions = new KvCacheOptions(command);
        var sampling = new SamplingOptions(command);

        command.SetAction(async (parsed, cancellationToken) =>
        {
            lk_cache_type type = KvCacheOptions.ParseType(parsed.GetRequiredValue(cache));
            var settings = new RunSettings(
                ReadPrompt(parsed.GetValue(prompt), parsed.GetValue(file)),
                new InferenceParams
                {
                    MaxTokens = NumberOptions.AtLeast(-1, parsed.GetValue(count), "--n-predict"),
                    SamplingPipeline = sampling.Read(parsed),
                },
                parsed.GetValue(json));
            KvCacheParams cacheParams = cacheOptions.Read(
                parsed,
                parsed.GetValue(keys) is { } k ? KvCacheOptions.ParseType(k) : type,
                parsed.GetValue(values) is { } v ? KvCacheOptions.ParseType(v) : type);
            uint? size = parsed.GetValue(contextSize) is { } c ? NumberOptions.ContextSize(c) : null;
            int? threadCount = NumberOptions.ReadThreads(parsed, threads);
            var parameters = new ModelParams(ModelOption.Resolve(parsed.GetValue(model)))
            {
                ContextSize = size,
                Threads = threadCount,
                KvCache = cacheParams,
            };
            return await RunAsync(parameters, settings, cancellationToken);
        });
        return command;
    }

    private static string ReadPrompt(string? prompt, string? file)
    {
        if ((prompt is null) == (file is null))
        {
            throw CliException.Usage("give a prompt with -p TEXT or -f FILE, one of the two");
        }

        return prompt ?? File.ReadAllText(ModelOption.RequireFile(file!, "prompt file"));
    }

    private static async Task<int> RunAsync(ModelParams parameters, RunSettings settings, CancellationToken cancellationToken)
    {
        using LLamaWeights weights = await ModelLoader.LoadAsync(parameters, cancellationToken);
        using LLamaContext context = weights.CreateContext(parameters);
        var executor = new InteractiveExecutor(context);
        var text = new StringBuilder(settings.Prompt);
        bool cancelled = false;
        bool quiet = settings.Json;
        Write(settings.Prompt, quiet);
        try
        {
            await foreach (string piece in executor.InferAsync(settings.Prompt, settings.Inference, cancellationToken))
            {
                text.Append(piece);
                Write(piece, quiet);
            }
        }
        catch (OperationCanceledException)
        {
            cancelled = true;
        }
        finally
        {
            Write(Environment.NewLine, quiet);
        }

        RunReport report = RunReport.Create(text.ToString(), executor, parameters.KvCache, cancelled);
        if (settings.Json)
        {
            report.WriteJson();
        }
        else
        {
            report.WriteSummary();
        }

        return cancelled ? ExitCodes.Cancelled : 0;
    }

    private static void Write(string text, bool quiet)
    {
        if (!quiet)
        {
            Console.Out.Write(text);
        }
    }

    private sealed record RunSettings(string Prompt, InferenceParams Inference, bool Json);
}
