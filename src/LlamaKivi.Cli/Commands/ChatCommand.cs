using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Templates;
using LlamaKivi.Transformers;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi chat`: an interactive conversation.</summary>
internal sealed class ChatCommand
{
    /// <summary>Name of the command.</summary>
    public const string Name = "chat";

    private const string Help = """
        /help         list the commands
        /clear        start a new conversation
        /save FOLDER  save the conversation and its cache
        /load FOLDER  load a saved conversation
        /stats        show speed and cache usage
        /exit         quit; also Ctrl-D
        Ctrl-C        stop an answer
        """;

    private readonly LLamaContext _context;
    private readonly InferenceParams _inference;
    private readonly string? _system;
    private InteractiveExecutor _executor;
    private ChatSession _session;

    private ChatCommand(LLamaContext context, InferenceParams inference, string? system)
    {
        _context = context;
        _inference = inference;
        _system = system;
        (_executor, _session) = Start();
    }

    public static Command Create()
    {
        var common = new CommonOptions();
        var sampling = new SamplingOptions();
        var system = new Option<string?>("--system") { Description = "System message" };
        var count = NumberOptions.Whole("--predict", "-n", "Maximum number of tokens per answer; -1: no limit", -1, int.MaxValue, -1);
        var context = NumberOptions.Whole("--ctx-size", "-c", "Context size in tokens (default: the model's trained context size)", 1, NumberOptions.MostTokens);
        var type = new Option<string>("--kv-cache") { Description = $"KV cache type: {string.Join(", ", KvCacheType.Names)}", DefaultValueFactory = _ => "kivi2" };
        var command = new Command(Name, "Chat with a model, using its own chat template");
        CommonOptions.Add(command, [common.Model, system, count, context, type, common.TypeK, common.TypeV, .. common.Context, common.Fit, .. sampling.All]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            StandardInput.CheckOpen();
            ModelParams parameters = common.Parameters(parsed);
            parameters.ContextSize = (uint?)parsed.GetValue(context);
            parameters.KvCache = common.SelectedCache(parsed, type, parameters.ModelPath, out _);
            string name = parameters.KvCache.TypeK.ToString();
            common.ApplyFit(parsed, parameters);
            using DefaultSamplingPipeline pipeline = sampling.Pipeline(parsed);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            using LLamaContext model = weights.CreateContext(parameters);
            bool hasTemplate = weights.Metadata.ContainsKey("tokenizer.chat_template");
            var inference = new InferenceParams
            {
                MaxTokens = parsed.GetValue(count),
                SamplingPipeline = pipeline,
                AntiPrompts = hasTemplate ? [] : ["User:"],
                OverflowStrategy = ContextOverflowStrategy.Shift,
            };
            Console.Error.WriteLine($"{Path.GetFileName(parameters.ModelPath)}, {name} cache of {model.ContextSize} tokens. /help lists the commands.");
            if (!hasTemplate)
            {
                Console.Error.WriteLine("The model's file has no chat template, so it may not be trained for chat. Messages are prefixed with \"User:\" and \"Assistant:\".");
            }

            return await new ChatCommand(model, inference, parsed.GetValue(system)).TalkAsync(cancellationToken).ConfigureAwait(false);
        });
    }

    private async Task<int> TalkAsync(CancellationToken cancellationToken)
    {
        bool terminal = !Console.IsInputRedirected;
        var editor = new LineEditor(ReadKey, Console.Out.Write);
        while (!cancellationToken.IsCancellationRequested)
        {
            string? line = terminal ? editor.ReadLine("> ") : await Console.In.ReadLineAsync(cancellationToken).ConfigureAwait(false);
            switch (line?.Trim())
            {
                case null or "/exit":
                    return ExitCode.Ok;
                case "":
                    break;
                case ['/', ..] command:
                    Do(command);
                    break;
                case var message:
                    await AnswerAsync(message, cancellationToken).ConfigureAwait(false);
                    break;
            }
        }

        return ExitCode.Interrupted;
    }

    // During line editing Ctrl-C is an ordinary key.
    private static ConsoleKeyInfo? ReadKey()
    {
        Console.TreatControlCAsInput = true;
        try
        {
            return Console.ReadKey(intercept: true);
        }
        finally
        {
            Console.TreatControlCAsInput = false;
        }
    }

    private async Task AnswerAsync(string message, CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        bool begun = false;
        // Ctrl-C ends the answer, not the program.
        using var signal = PosixSignalRegistration.Create(PosixSignal.SIGINT, context =>
        {
            context.Cancel = true;
            stop.Cancel();
        });
        try
        {
            await foreach (string piece in _session.ChatAsync(new ChatHistory.Message(AuthorRole.User, message), _inference, stop.Token).ConfigureAwait(false))
            {
                begun = true;
                Console.Out.Write(piece);
                Console.Out.Flush();
            }
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            // Cancelled before the answer began.
        }
        catch (Exception e) when (e is ContextOverflowException or KvCacheFullException or TemplateException)
        {
            if (begun)
            {
                Console.Out.WriteLine();
            }

            Console.Error.Write($"The message was not answered and has been discarded. {Errors.FirstLine(e).TrimEnd('.')}.{(e is TemplateException ? "" : " /clear starts a new conversation.")}");
        }

        if (stop.IsCancellationRequested)
        {
            Console.Error.Write(" [stopped]");
        }

        cancellationToken.ThrowIfCancellationRequested();
        Console.Out.WriteLine();
    }

    private void Do(string command)
    {
        string[] parts = command.Split(' ', 2, StringSplitOptions.TrimEntries);
        try
        {
            switch (parts)
            {
                case ["/help"]:
                    Console.Out.WriteLine(Help);
                    break;
                case ["/clear"]:
                    _context.Handle.SeqTruncate(0, 0);
                    (_executor, _session) = Start();
                    break;
                case ["/save", { Length: > 0 } folder]:
                    _session.SaveSession(folder);
                    Console.Out.WriteLine($"{_session.History.Messages.Count} messages, {_context.KvCacheUsage.Tokens} tokens written to {folder}");
                    break;
                case ["/load", { Length: > 0 } folder]:
                    _session.LoadSession(folder, loadTransforms: false);
                    Console.Out.WriteLine($"{_session.History.Messages.Count} messages, {_context.KvCacheUsage.Tokens} tokens read from {folder}");
                    break;
                case ["/save" or "/load", ..]:
                    Console.Error.WriteLine($"{parts[0]} needs a folder");
                    break;
                case ["/stats"]:
                    WriteStats();
                    break;
                default:
                    Console.Error.WriteLine($"Unknown command {parts[0]}; /help lists the commands.");
                    break;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or LlamaKiviException or System.Text.Json.JsonException or ArgumentException)
        {
            Console.Error.WriteLine($"{parts[0]} failed: {Errors.FirstLine(e)}");
        }
    }

    private (InteractiveExecutor Executor, ChatSession Session) Start()
    {
        var executor = new InteractiveExecutor(_context);
        var session = new ChatSession(executor);
        if (_context.Weights.Metadata.ContainsKey("tokenizer.chat_template"))
        {
            session.WithHistoryTransform(new PromptTemplateTransformer(_context.Weights));
        }

        if (_system is not null)
        {
            session.AddSystemMessage(_system);
        }

        return (executor, session);
    }

    private void WriteStats()
    {
        CacheUsage usage = _context.KvCacheUsage;
        InferenceTimings last = _executor.Timings;
        double stored = usage.QuantizedBytes + usage.ExactBytes;
        Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"last answer: {last.PromptTokens} tokens read at {last.PromptTokensPerSecond:F1} tok/s, {last.GeneratedTokens} written at {last.DecodeTokensPerSecond:F1} tok/s"));
        Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"cache: {usage.Tokens} of {usage.Capacity} tokens, {stored / (1 << 20):F2} MiB ({usage.F16Bytes / (double)(1 << 20):F2} MiB as f16)"));
    }
}
