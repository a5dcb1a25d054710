using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Hosting;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Server;

/// <summary><c>POST /v1/completions</c>: continues texts or tokens.</summary>
internal static class Completions
{
    public static async Task HandleAsync(ApiRequest request)
    {
        JsonFields body = await request.ReadBodyAsync().ConfigureAwait(false);
        using ModelLease lease = await request.Server.Models.AcquireAsync(body.Text("model"), request.Cancellation).ConfigureAwait(false);
        ServedModel model = lease.Model;
        CompletionRequest read = CompletionRequest.Read(body, request.Server.Options, model);
        string? prefixKey = request.PrefixKey(body);
        var outputs = read.Prompts.SelectMany(prompt => Enumerable.Range(0, read.Choices).Select(choice => new Output(model, read, prompt, choice, prefixKey))).ToArray();
        IAsyncEnumerable<(int Stream, string Item)> pieces = Merged.ReadAsync<string>([.. outputs.Select(output => (Func<CancellationToken, IAsyncEnumerable<string>>)output.RunAsync)], request.Cancellation);
        var head = new CompletionView($"cmpl-{Guid.NewGuid():N}", "text_completion", DateTimeOffset.UtcNow.ToUnixTimeSeconds(), model.Names[0], [], null);
        if (!read.Stream)
        {
            var texts = outputs.Select(_ => new StringBuilder()).ToArray();
            await foreach ((int i, string piece) in pieces.ConfigureAwait(false))
            {
                texts[i].Append(piece);
            }

            CompletionChoice[] choices = [.. outputs.Select((output, i) => new CompletionChoice(i, texts[i].ToString(), output.Logprobs(true), output.Finish))];
            await JsonResult.WriteAsync(request.Http.Response, head with { Choices = choices, Usage = Usage() }, ServerJson.Text.CompletionView).ConfigureAwait(false);
            return;
        }

        EventStream? stream = null;
        await foreach ((int i, string piece) in pieces.ConfigureAwait(false))
        {
            await SendAsync(new CompletionChoice(i, piece, outputs[i].Logprobs(false), null)).ConfigureAwait(false);
        }

        for (int i = 0; i < outputs.Length; i++)
        {
            await SendAsync(new CompletionChoice(i, "", outputs[i].Logprobs(true), outputs[i].Finish)).ConfigureAwait(false);
        }

        if (read.IncludeUsage)
        {
            await stream!.SendAsync(head with { Usage = Usage() }, ServerJson.Text.CompletionView, null, request.Cancellation).ConfigureAwait(false);
        }

        stream!.WriteDone();

        Task SendAsync(CompletionChoice choice)
        {
            stream ??= EventStream.Start(request.Http.Response);
            return stream.SendAsync(head with { Choices = [choice] }, ServerJson.Text.CompletionView, null, request.Cancellation);
        }

        UsageView Usage()
        {
            // A prompt counts once, however many choices it has.
            long prompt = outputs.Where((_, i) => i % read.Choices == 0).Sum(output => output.PromptTokens);
            long generated = outputs.Sum(output => (long)output.Stream!.Timings.GeneratedTokens);
            return new UsageView(prompt, generated, prompt + generated, new PromptTokensDetails(outputs.Where((_, i) => i % read.Choices == 0).Sum(output => (long)output.Stream!.CachedTokens)), null);
        }
    }

    /// <summary>One choice.</summary>
    private sealed class Output(ServedModel model, CompletionRequest request, object prompt, int choice, string? prefixKey)
    {
        private readonly Tokenizer _tokenizer = model.Weights.Tokenizer;
        private int _given;
        private int _offset;

        public InferenceStream? Stream { get; private set; }

        public int PromptTokens => Stream!.Timings.PromptTokens + Stream.CachedTokens;

        public string Finish => Stream!.StopReason is StopReason.MaxTokens or StopReason.ContextFull ? "length" : "stop";

        public async IAsyncEnumerable<string> RunAsync([System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken)
        {
            using DefaultSamplingPipeline pipeline = request.CreatePipeline(choice);
            var parameters = new InferenceParams { MaxTokens = request.MaxTokens ?? -1, AntiPrompts = [.. request.Stops], SamplingPipeline = pipeline, TopLogprobs = request.TopLogprobs, Slot = request.Slot, PrefixKey = prefixKey };
            Stream = prompt is int[] tokens
                ? model.Engine.InferAsync(tokens, parameters, cancellationToken)
                : model.Engine.InferAsync((string)prompt, parameters, cancellationToken);
            string echo = !request.Echo ? "" : prompt as string ?? _tokenizer.Decode((int[])prompt, special: true);
            _offset = echo.Length;
            if (echo.Length > 0)
            {
                yield return echo;
            }

            await foreach (string piece in new StopStrings(parameters.AntiPrompts).UpToFirst(Stream, cancellationToken).ConfigureAwait(false))
            {
                yield return piece;
            }
        }

        /// <summary>Log probabilities that were not given yet; null: none.</summary>
        public CompletionLogprobs? Logprobs(bool isLast)
        {
            if (request.TopLogprobs is null)
            {
                return null;
            }

            TokenLogprobs[] tokens = [.. Stream!.Logprobs.Skip(_given)];
            if (tokens.Length == 0 && !(isLast && _given == 0))
            {
                return null;
            }

            _given += tokens.Length;
            var offsets = new List<int>();
            foreach (TokenLogprobs token in tokens)
            {
                offsets.Add(_offset);
                _offset += Text(token.Token).Length;
            }

            return new CompletionLogprobs(
                [.. tokens.Select(token => Text(token.Token))],
                [.. tokens.Select(token => Math.Max(token.Logprob, -9999))],
                [.. tokens.Select(token => token.Top.GroupBy(top => Text(top.Token), StringComparer.Ordinal).ToDictionary(group => group.Key, group => Math.Max(group.Max(top => top.Logprob), -9999), StringComparer.Ordinal))],
                [.. offsets]);
        }

        private string Text(LLamaToken token) => _tokenizer.Decode([(int)token], special: true);
    }
}

/// <summary>A request of <c>/v1/completions</c>.</summary>
internal sealed class CompletionRequest
{
    private readonly SamplingChatOptions _sampling = new();

    private CompletionRequest()
    {
    }

    /// <summary>The prompts: strings, or arrays of token ids.</summary>
    public required object[] Prompts { get; init; }

    public int Choices { get; private init; }

    public int? MaxTokens { get; private init; }

    public bool Stream { get; private init; }

    public bool IncludeUsage { get; private init; }

    public bool Echo { get; private init; }

    public int? TopLogprobs { get; private init; }

    public int? Slot { get; private init; }

    public IReadOnlyList<string> Stops { get; private init; } = [];

    public static CompletionRequest Read(JsonFields body, LlamaKiviServerOptions server, ServedModel model)
    {
        body.Accept("model", "user", "store", "cache_prompt", "prompt_cache_key");
        RequestMetadata.Read(body);
        int vocabulary = model.Weights.Tokenizer.VocabularySize;
        int choices = (int)(body.Whole("n", 1, server.MaxChoices) ?? 1);
        bool stream = body.Flag("stream") ?? false;
        body.AcceptOnly("best_of", value => value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int n) && n == choices, "it must equal n");
        body.AcceptOnly("suffix", "", "leave it out");
        JsonFields? streamOptions = stream ? body.Object("stream_options") : null;
        streamOptions?.Accept("include_obfuscation");
        long? most = body.Whole("max_tokens", 1, int.MaxValue) ?? body.Whole("n_predict", 1, int.MaxValue);
        var request = new CompletionRequest
        {
            Prompts = ReadPrompts(body, vocabulary),
            Choices = choices,
            Stream = stream,
            IncludeUsage = streamOptions?.Flag("include_usage") ?? false,
            Echo = body.Flag("echo") ?? false,
            TopLogprobs = (int?)body.Whole("logprobs", 0, 20),
            MaxTokens = SamplingFields.MaxTokens(most ?? 16, server),  // OpenAI's default
            Slot = SamplingFields.Slot(body, model),
            Stops = [.. SamplingFields.Stops(body, "stop") ?? []],
        };
        streamOptions?.RefuseUnknown();
        SamplingFields.Read(body, request._sampling, vocabulary);
        body.RefuseUnknown();
        return request.Prompts.Length * choices <= Math.Max(server.MaxChoices, request.Prompts.Length)
            ? request
            : throw ApiException.Bad("n", $"{request.Prompts.Length} prompts with n {choices} make {request.Prompts.Length * choices} choices; at most {server.MaxChoices} are allowed.", "invalid_value");
    }

    /// <summary>Creates the pipeline of a choice.</summary>
    public DefaultSamplingPipeline CreatePipeline(int choice)
    {
        var defaults = new DefaultSamplingPipeline();
        return new DefaultSamplingPipeline
        {
            Temperature = _sampling.Temperature ?? defaults.Temperature,
            TopP = _sampling.TopP ?? defaults.TopP,
            TopK = _sampling.TopK ?? defaults.TopK,
            MinP = _sampling.MinP ?? defaults.MinP,
            FrequencyPenalty = _sampling.FrequencyPenalty ?? 0,
            PresencePenalty = _sampling.PresencePenalty ?? 0,
            RepeatPenalty = _sampling.RepeatPenalty ?? 1,
            LogitBias = _sampling.LogitBias ?? defaults.LogitBias,
            Seed = _sampling.Seed is { } seed ? (uint)(seed + choice) : defaults.Seed,
        };
    }

    private static object[] ReadPrompts(JsonFields body, int vocabularySize)
    {
        JsonElement prompt = body.Required("prompt");
        if (prompt.ValueKind == JsonValueKind.String)
        {
            return [JsonFields.NotEmpty(prompt, "prompt")];
        }

        IReadOnlyList<(JsonElement Value, string Path)> items = JsonFields.Items(prompt, "prompt");
        return items.Count == 0 ? throw ApiException.Bad("prompt", "prompt is empty.", "empty_array")
            : items[0].Value.ValueKind == JsonValueKind.Number ? [TokenFields.Read(prompt, "prompt", vocabularySize)]
            : items.Count > 64 ? throw ApiException.Bad("prompt", $"prompt has {items.Count} prompts; at most 64 are supported.", "invalid_value")
            : [.. items.Select(item => item.Value.ValueKind == JsonValueKind.Array
                ? (object)TokenFields.ReadSome(item.Value, item.Path, vocabularySize)
                : JsonFields.NotEmpty(item.Value, item.Path))];
    }
}

/// <summary>Reads token ids.</summary>
internal static class TokenFields
{
    public static int[] Read(JsonElement value, string path, int vocabularySize) => [.. JsonFields.Items(value, path).Select(item =>
        item.Value.ValueKind == JsonValueKind.Number && item.Value.TryGetInt32(out int id) && id >= 0 && id < vocabularySize
            ? id
            : throw ApiException.Bad(item.Path, $"{item.Path} is not a token id from 0 to {vocabularySize - 1}.", "invalid_value"))];

    /// <summary>Reads at least one token id.</summary>
    public static int[] ReadSome(JsonElement value, string path, int vocabularySize) =>
        Read(value, path, vocabularySize) is { Length: > 0 } tokens ? tokens : throw ApiException.Bad(path, $"{path} is empty.", "empty_array");
}

internal sealed record CompletionView(string Id, string Object, long Created, string Model, CompletionChoice[] Choices, UsageView? Usage);

internal sealed record CompletionChoice(int Index, string Text, CompletionLogprobs? Logprobs, [property: JsonIgnore(Condition = JsonIgnoreCondition.Never)] string? FinishReason);

internal sealed record CompletionLogprobs(string[] Tokens, float[] TokenLogprobs, Dictionary<string, float>[] TopLogprobs, int[] TextOffset);
