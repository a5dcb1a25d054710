using System.Text;
using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Transformers;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Code snippets of LLamaSharp programs, with only the namespaces changed.</summary>
public sealed class SnippetTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-snippets").FullName;
    private readonly string modelPath = InferenceTests.DemoModel.Path;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static async Task<string> Collect(IAsyncEnumerable<string> pieces)
    {
        var text = new StringBuilder();
        await foreach (var piece in pieces)
        {
            text.Append(piece);
        }

        return text.ToString();
    }

    [Fact]
    public async Task Snippet_01_chat_session()
    {
        var parameters = new ModelParams(modelPath)
        {
            ContextSize = 1024,
            GpuLayerCount = 0,
        };
        using var model = LLamaWeights.LoadFromFile(parameters);
        using var context = model.CreateContext(parameters);
        var executor = new InteractiveExecutor(context);

        var chatHistory = new ChatHistory();
        chatHistory.AddMessage(AuthorRole.System, "Transcript of a dialog, where the User interacts with an Assistant named Bob.");
        chatHistory.AddMessage(AuthorRole.User, "Hello, Bob.");
        chatHistory.AddMessage(AuthorRole.Assistant, "Hello. How may I help you today?");

        ChatSession session = new(executor, chatHistory);

        InferenceParams inferenceParams = new InferenceParams()
        {
            MaxTokens = 32,
            AntiPrompts = new List<string> { "User:" },
            SamplingPipeline = new DefaultSamplingPipeline { Seed = 1 },
        };

        string answer = "";
        await foreach (
            var text
            in session.ChatAsync(
                new ChatHistory.Message(AuthorRole.User, "What is a compiler?"),
                inferenceParams))
        {
            answer += text;
        }

        Assert.NotEqual("", answer);
        Assert.Equal(AuthorRole.Assistant, session.History.Messages.Last().AuthorRole);
        Assert.Equal(5, session.History.Messages.Count);
    }

    [Fact]
    public async Task Snippet_02_stateless_executor()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        var ex = new StatelessExecutor(model, parameters);
        var inferenceParams = new InferenceParams
        {
            SamplingPipeline = new DefaultSamplingPipeline
            {
                Temperature = 0.6f,
                Seed = 1,
            },
            AntiPrompts = new List<string> { "Question:", "#", "Question: ", ".\n" },
            MaxTokens = 50,
        };
        string first = await Collect(ex.InferAsync("Question: What is garbage collection?\nAnswer: ", inferenceParams));
        Assert.NotEqual("", first);
    }

    [Fact]
    public async Task Snippet_03_instruct_executor()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var context = model.CreateContext(parameters);
        var executor = new InstructExecutor(context);
        var inferenceParams = new InferenceParams
        {
            SamplingPipeline = new DefaultSamplingPipeline
            {
                Temperature = 0.8f,
                Seed = 1,
            },
            MaxTokens = 40,
        };
        Assert.NotEqual("", await Collect(executor.InferAsync("Write a letter.", inferenceParams)));
    }

    [Fact]
    public async Task Snippet_04_save_and_load_a_session()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var context = model.CreateContext(parameters);
        var executor = new InteractiveExecutor(context);
        var session = new ChatSession(executor);
        session.WithOutputTransform(new LLamaTransforms.KeywordTextOutputStreamTransform(
            ["User:", "Assistant:"],
            redundancyLength: 8));
        var options = new InferenceParams { MaxTokens = 16, SamplingPipeline = new GreedySamplingPipeline() };
        await Collect(session.ChatAsync(new ChatHistory.Message(AuthorRole.User, "Tell me of threads."), options));
        session.SaveSession(_folder + "/session");
        string expected = await Collect(session.ChatAsync(new ChatHistory.Message(AuthorRole.User, "And of locks?"), options));

        session.LoadSession(_folder + "/session");
        Assert.Equal(2, session.History.Messages.Count);
        Assert.Equal(expected, await Collect(session.ChatAsync(new ChatHistory.Message(AuthorRole.User, "And of locks?"), options)));
    }

    [Fact]
    public async Task Snippet_05_chat_session_with_restart()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var context = model.CreateContext(parameters);
        var executor = new InteractiveExecutor(context);
        var chatHistory = ChatHistory.FromJson("""{"messages":[{"author_role":"System","content":"A talk."},{"author_role":"User","content":"Hi"},{"author_role":"Assistant","content":"Hello"}]}""") ?? new ChatHistory();
        ChatSession prototypeSession = await ChatSession.InitializeSessionFromHistoryAsync(executor, chatHistory);
        prototypeSession.WithOutputTransform(new LLamaTransforms.KeywordTextOutputStreamTransform(["User:", "Assistant:"], redundancyLength: 8));
        var resetState = prototypeSession.GetSessionState();

        ChatSession session = new ChatSession(executor);
        session.LoadSession(resetState);
        var options = new InferenceParams { MaxTokens = 12, SamplingPipeline = new GreedySamplingPipeline() };
        string first = await Collect(session.ChatAsync(new ChatHistory.Message(AuthorRole.User, "What is Rust?"), options));
        session.LoadSession(resetState);
        Assert.Equal(first, await Collect(session.ChatAsync(new ChatHistory.Message(AuthorRole.User, "What is Rust?"), options)));
        string again = await Collect(session.RegenerateAssistantMessageAsync(options));
        Assert.Equal(first, again);
    }

    [Fact]
    public async Task Snippet_06_roles_and_history_transform()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = LLamaWeights.LoadFromFile(parameters);
        using var context = model.CreateContext(parameters);
        var session = new ChatSession(new InteractiveExecutor(context), new ChatHistory());
        session.WithHistoryTransform(new LLamaTransforms.DefaultHistoryTransform("Human", "Machine"));
        session.AddInputTransform(new LLamaTransforms.NaiveTextInputTransform());
        session.AddSystemMessage("A talk between a human and a machine.");
        string text = session.HistoryTransform.HistoryToText(session.History);
        Assert.Contains("A talk between", text, StringComparison.Ordinal);
        Assert.NotEqual("", await Collect(session.ChatAsync(
            new ChatHistory.Message(AuthorRole.User, "  Hello.  "),
            new InferenceParams { MaxTokens = 8, AntiPrompts = ["Human:"], SamplingPipeline = new DefaultSamplingPipeline { Seed = 1 } })));
        Assert.Equal("Hello.", session.History.Messages[1].Content);
    }

    [Fact]
    public void Snippet_07_llama_template()
    {
        var template = new LLamaTemplate("chatml")
        {
            AddAssistant = true,
        };
        template.Add("system", "You are a bot.").Add("user", "Hello");
        string prompt = Encoding.UTF8.GetString(template.Apply());
        Assert.Equal("<|im_start|>system\nYou are a bot.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", prompt);
        Assert.Equal(2, template.Count);
        var (role, content) = template[1];
        Assert.Equal("user: Hello", $"{role}: {content}");
        Assert.Equal(prompt, PromptTemplateTransformer.ToModelPrompt(template));
    }

    [Fact]
    public void Snippet_08_tokenize_and_detokenize()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 128 };
        using var weights = LLamaWeights.LoadFromFile(parameters);
        using var context = weights.CreateContext(parameters);
        LLamaToken[] tokens = context.Tokenize("Hello, world!", addBos: false);
        Assert.Equal("Hello, world!", context.DeTokenize(tokens).TrimStart());
        var decoder = new StreamingTokenDecoder(context);
        decoder.AddRange(tokens);
        Assert.Equal("Hello, world!", decoder.Read().TrimStart());
        Assert.All(tokens, token => Assert.False(token.IsControl(weights.Vocab)));
        Assert.All(tokens, token => Assert.False(token.IsEndOfGeneration(weights.NativeHandle)));
        Assert.True(weights.Vocab.BOS is { } bos && bos.GetAttributes(weights.Vocab).HasFlag(LLamaTokenAttr.Control));
    }

    [Fact]
    public async Task Snippet_09_decode_by_hand()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 256, BatchSize = 128 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var context = model.CreateContext(parameters);
        using var sampler = new DefaultSamplingPipeline { Temperature = 0.7f, Seed = 3 };
        var decoder = new StreamingTokenDecoder(context);
        var batch = new LLamaBatch();
        LLamaToken[] tokens = context.Tokenize("The garbage collector");
        for (var i = 0; i < tokens.Length; i++)
        {
            batch.Add(tokens[i], i, LLamaSeqId.Zero, i == tokens.Length - 1);
        }

        Assert.Equal(DecodeResult.Ok, await context.DecodeAsync(batch));
        var n_cur = batch.TokenCount;
        for (int n = 0; n < 12; n++)
        {
            var id = sampler.Sample(context.NativeHandle, batch.TokenCount - 1);
            if (id.IsEndOfGeneration(context.Vocab))
            {
                break;
            }

            decoder.Add(id);
            batch.Clear();
            batch.Add(id, n_cur++, LLamaSeqId.Zero, true);
            if (await context.DecodeAsync(batch) != 0)
            {
                Assert.Fail("not decoded");
            }
        }

        Assert.NotEqual("", decoder.Read());
    }

    [Fact]
    public async Task Snippet_10_batched_fork()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 1024, SeqMax = 8 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var executor = new BatchedExecutor(model, parameters);
        using var start = executor.Create();
        start.Prompt(executor.Context.Tokenize("Not many people know that"));
        await executor.Infer();

        var sampler = new DefaultSamplingPipeline { Seed = 5 };
        using var left = start.Fork();
        using var right = start.Fork();
        var leftToken = left.Sample(sampler);
        var rightToken = right.Sample(sampler);
        left.Prompt(leftToken);
        right.Prompt(rightToken);
        Assert.True(left.RequiresInference);
        Assert.Equal(DecodeResult.Ok, await executor.Infer());
        Assert.Equal(start.TokenCount + 1, left.TokenCount);
        Assert.True(right.RequiresSampling);
    }

    [Fact]
    public async Task Snippet_11_batched_rewind()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var executor = new BatchedExecutor(model, parameters);
        using var conversation = executor.Create();
        conversation.Prompt(executor.Context.Tokenize("Once upon a time there was"));
        await executor.Infer();
        var sampler = new GreedySamplingPipeline();
        var written = new List<LLamaToken>();
        for (var i = 0; i < 8; i++)
        {
            var token = conversation.Sample(sampler);
            written.Add(token);
            conversation.Prompt(token);
            await executor.Infer();
        }

        conversation.Rewind(5);
        conversation.Prompt(written[3]);
        await executor.Infer();
        Assert.Equal(written[4], conversation.Sample(sampler));
    }

    [Fact]
    public async Task Snippet_12_batched_beam_search()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 1024, SeqMax = 16 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var executor = new BatchedExecutor(model, parameters);
        const int beams = 3;
        var initial = executor.Create();
        initial.Prompt(executor.Context.Tokenize("The borrow checker"));
        await executor.Infer();
        List<(double Probability, Conversation Conversation, List<LLamaToken> Tokens)> candidates = [(1, initial, [])];
        for (var i = 0; i < 4; i++)
        {
            var next = new List<(double, Conversation, List<LLamaToken>)>();
            foreach (var (probability, conversation, tokens) in candidates)
            {
                var logits = LLamaTokenDataArray.Create(conversation.Sample());
                logits.Softmax();
                for (var k = 0; k < beams; k++)
                {
                    var data = logits.Data.Span[k];
                    var fork = conversation.Fork();
                    fork.Prompt(data.ID);
                    next.Add((probability * data.Probability, fork, [.. tokens, data.ID]));
                }

                conversation.Dispose();
            }

            await executor.Infer();
            next.Sort((a, b) => b.Item1.CompareTo(a.Item1));
            next.Skip(beams).ToList().ForEach(beam => beam.Item2.Dispose());
            candidates = next.Take(beams).ToList();
        }

        Assert.Equal(beams, candidates.Select(c => string.Join(' ', c.Tokens)).Distinct().Count());
        Assert.True(candidates[0].Probability >= candidates[1].Probability);
        candidates.ForEach(c => c.Conversation.Dispose());
    }

    [Fact]
    public async Task Snippet_13_batched_save_and_load()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512, SeqMax = 4 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        LLamaToken expected;
        string file = Path.Combine(_folder, "conversation.bin");
        {
            using var executor = new BatchedExecutor(model, parameters);
            using var conversation = executor.Create();
            conversation.Prompt(executor.Context.Tokenize("I would like to tell you about"));
            await executor.Infer();
            expected = conversation.Sample(new GreedySamplingPipeline());
            conversation.Save(file);
            using var state = conversation.Save();
            Assert.True(state.Size > 0);
        }

        using var other = new BatchedExecutor(model, parameters);
        using var loaded = other.Load(file);
        loaded.Prompt(expected);
        await other.Infer();
        Assert.True(loaded.RequiresSampling);
        Assert.Equal(1 + other.Context.Tokenize("I would like to tell you about").Length, loaded.TokenCount);
    }

    [Fact]
    public async Task Snippet_14_grammar_json_response()
    {
        const string gbnf = """
            root ::= "{" ws "\"answer\"" ws ":" ws ("true" | "false") ws "}"
            ws ::= [ ]?
            """;
        var parameters = new ModelParams(modelPath) { ContextSize = 256 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        var ex = new StatelessExecutor(model, parameters);
        using var samplingPipeline = new DefaultSamplingPipeline
        {
            Temperature = 0.6f,
            Grammar = new Grammar(gbnf, "root"),
        };
        var inferenceParams = new InferenceParams()
        {
            SamplingPipeline = samplingPipeline,
            MaxTokens = 50,
        };
        using var json = JsonDocument.Parse(await Collect(ex.InferAsync("Is water wet?", inferenceParams)));
        Assert.Equal(JsonValueKind.Object, json.RootElement.ValueKind);
    }

    [Fact]
    public async Task Snippet_15_custom_sampler()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 256 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        var ex = new StatelessExecutor(model, parameters);
        var inferenceParams = new InferenceParams
        {
            SamplingPipeline = new CustomSamplingPipeline(),
            MaxTokens = 12,
        };
        string custom = await Collect(ex.InferAsync("The garbage collector", inferenceParams));
        string greedy = await Collect(ex.InferAsync("The garbage collector", new InferenceParams { MaxTokens = 12, SamplingPipeline = new GreedySamplingPipeline() }));
        Assert.NotEqual("", custom);
        Assert.NotEqual(greedy, custom);
    }

    public class CustomSamplingPipeline : BaseSamplingPipeline
    {
        protected override SafeLLamaSamplerChainHandle CreateChain(SafeLLamaContextHandle context)
        {
            var chain = SafeLLamaSamplerChainHandle.Create(LLamaSamplerChainParams.Default());
            chain.AddTopK(10);
            chain.AddCustom(new RemoveMostLikelyToken());
            chain.AddDistributionSampler(42);
            return chain;
        }
    }

    public sealed class RemoveMostLikelyToken : ICustomSampler
    {
        public string Name => "Remove Most Likely Token";

        public void Apply(ref LLamaTokenDataArrayNative tokenData)
        {
            if (tokenData.Size <= 1)
            {
                return;
            }

            if (!tokenData.Sorted)
            {
                tokenData.Data.Sort((a, b) => b.Logit.CompareTo(a.Logit));
            }

            tokenData.Data[0].Logit = float.NegativeInfinity;
            tokenData.Sorted = false;
        }

        public void Accept(LLamaToken token)
        {
        }

        public void Reset()
        {
        }

        public ICustomSampler Clone() => new RemoveMostLikelyToken();

        public void Dispose()
        {
        }
    }

    [Fact]
    public async Task Snippet_16_get_embeddings()
    {
        var @params = new ModelParams(modelPath) { Embeddings = true, ContextSize = 256, PoolingType = LLamaPoolingType.Mean };
        using var weights = await LLamaWeights.LoadFromFileAsync(@params);
        var embedder = new LLamaEmbedder(weights, @params);
        float[] embeddings = (await embedder.GetEmbeddings("Hello there.")).Single();
        Assert.Equal(embedder.EmbeddingSize, embeddings.Length);
        embedder.Dispose();
    }

    [Fact]
    public void Snippet_17_quantize()
    {
        string output = Path.Combine(_folder, "small.gguf");
        Assert.True(LLamaQuantizer.Quantize(modelPath, output, "q4_0"));
        using var model = LLamaWeights.LoadFromFile(new ModelParams(output));
        Assert.Equal("llama", model.Metadata["general.architecture"]);
    }

    [Fact]
    public async Task Snippet_18_chat_client()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var context = model.CreateContext(parameters);
        IChatClient client = new InteractiveExecutor(context).AsChatClient();
        var options = new ChatOptions { Temperature = 0.6f, MaxOutputTokens = 16, StopSequences = ["User:"] };
        var chatHistory = new List<ChatMessage> { new(ChatRole.System, "A talk."), new(ChatRole.User, "What is a linker?") };
        string text = "";
        await foreach (var update in client.GetStreamingResponseAsync(chatHistory, options))
        {
            text += update;
        }

        Assert.NotEqual("", text);
    }

    [Fact]
    public async Task Snippet_19_save_and_load_context_and_executor_state()
    {
        var parameters = new ModelParams(modelPath) { ContextSize = 512 };
        using var model = await LLamaWeights.LoadFromFileAsync(parameters);
        using var context = model.CreateContext(parameters);
        var ex = new InteractiveExecutor(context);
        var inferenceParams = new InferenceParams { MaxTokens = 10, SamplingPipeline = new GreedySamplingPipeline() };
        await Collect(ex.InferAsync("The memory model of a language", inferenceParams));
        var modelStatePath = Path.Combine(_folder, "model.st");
        context.SaveState(modelStatePath);
        var executorStatePath = Path.Combine(_folder, "executor.json");
        await ex.SaveState(executorStatePath);
        string expected = await Collect(ex.InferAsync(" and", inferenceParams));

        using var context2 = model.CreateContext(parameters);
        context2.LoadState(modelStatePath);
        var ex2 = new InteractiveExecutor(context2);
        await ex2.LoadState(executorStatePath);
        Assert.Equal(expected, await Collect(ex2.InferAsync(" and", inferenceParams)));
    }

    [Fact]
    public async Task Snippet_20_load_with_progress_and_log()
    {
        var lines = new List<string>();
        NativeLibraryConfig.All.WithLogCallback((level, message) =>
        {
            lock (lines)
            {
                lines.Add($"{level}: {message}");
            }
        });
        NativeApi.llama_empty_call();
        var parameters = new ModelParams(modelPath) { ContextSize = 256, LoadMode = LLamaLoadMode.None };
        var progress = new List<float>();
        using var model = await LLamaWeights.LoadFromFileAsync(parameters, CancellationToken.None, new Direct(progress));
        NativeLibraryConfig.All.WithLogCallback((NativeLogConfig.LLamaLogCallback?)null);
        Assert.Equal(1, progress[^1], 1e-3f);
        lock (lines)  // a call of another test may still write
        {
            Assert.Contains(lines, line => line.StartsWith("Info: ", StringComparison.Ordinal) && line.EndsWith('\n'));
        }

        Assert.True(model.ParameterCount > 30_000_000);
    }

    private sealed class Direct(List<float> values) : IProgress<float>
    {
        public void Report(float value) => values.Add(value);
    }
}
