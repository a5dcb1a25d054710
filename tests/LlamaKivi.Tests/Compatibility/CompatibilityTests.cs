using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Calls as programs written for LLamaSharp make them.</summary>
public sealed class CompatibilityTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    // A program's own parameters, with only the members of LLamaSharp's interface.
    private sealed class OwnParams : IContextParams
    {
        public uint? ContextSize => 128;

        public uint BatchSize => 64;

        public uint UBatchSize => 64;

        public uint SeqMax => 1;

        public int? Threads => 1;
    }

    [Fact]
    public async Task Executors_take_parameters_by_their_names()
    {
        var executor = new StatelessExecutor(weights: model.Weights, @params: new OwnParams(), logger: null);
        var text = new StringBuilder();
        await foreach (string piece in executor.InferAsync(
            prompt: "The garbage collector",
            inferenceParams: new InferenceParams { MaxTokens = 3, SamplingPipeline = new GreedySamplingPipeline() },
            cancellationToken: TestContext.Current.CancellationToken))
        {
            text.Append(piece);
        }

        Assert.Equal(" is a new", text.ToString());
        text.Clear();
        await foreach (string piece in ((ILLamaExecutor)executor).InferAsync(text: "The garbage collector", new InferenceParams { MaxTokens = 2 }, token: TestContext.Current.CancellationToken))
        {
            text.Append(piece);
        }

        Assert.NotEmpty(text.ToString());
    }

    [Fact]
    public void Executors_read_text_alone()
    {
        using LLamaContext context = model.Weights.CreateContext(new OwnParams());
        Assert.Equal(new KvCacheParams(), ((IContextParams)new OwnParams()).KvCache);
        Assert.False(new InteractiveExecutor(context).IsMultiModal);
        Assert.False(new StatelessExecutor(model.Weights, new OwnParams()).IsMultiModal);
        Assert.False(((ILLamaExecutor)new InstructExecutor(context)).IsMultiModal);
    }

    [Fact]
    public void A_decoder_can_be_created_from_handles_and_weights()
    {
        using LLamaContext context = model.Weights.CreateContext(new OwnParams());
        LLamaToken[] tokens = context.Tokenize("Hello", addBos: false);
        foreach (var decoder in new[] { new StreamingTokenDecoder(context), new(Encoding.UTF8, context.NativeHandle), new(Encoding.UTF8, model.Weights), new(Encoding.UTF8, model.Weights.NativeHandle) })
        {
            decoder.AddRange(tokens);
            Assert.Equal("Hello", decoder.Read());
        }
    }

    [Fact]
    public void Metadata_is_text_as_programs_read_it()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path));
        Assert.Equal("0.000010", weights.Metadata["llama.attention.layer_norm_rms_epsilon"]);
        Assert.Equal("10000.000000", weights.Metadata["llama.rope.freq_base"]);
        Assert.Equal("true", weights.Metadata["tokenizer.ggml.add_bos_token"]);
        Assert.Equal("10", weights.Metadata["llama.block_count"]);
        Assert.DoesNotContain("tokenizer.ggml.tokens", weights.Metadata);
        weights.Metadata = new Dictionary<string, string> { ["a"] = "b" };
        Assert.Equal("b", weights.NativeHandle.ReadMetadata()["a"]);
    }

    [Fact]
    public void The_end_of_a_turn_is_found_by_its_name() => Assert.Equal(model.Weights.Vocab.EOS, model.Weights.Vocab.EOT);

    [Fact]
    public void LoadWeightsFailedException_names_the_model()
    {
        Exception error = new LoadWeightsFailedException("model.gguf");
        Assert.IsAssignableFrom<RuntimeError>(error);
        Assert.Equal(("model.gguf", "The model 'model.gguf' cannot be loaded."), (((LoadWeightsFailedException)error).ModelPath, error.Message));
    }

    [Fact]
    public void How_the_library_is_chosen_is_taken_as_hints()
    {
        NativeLibraryConfig one = NativeLibraryConfig.LLama;
        Assert.Same(one, one.WithLibrary("nowhere").WithCuda().WithVulkan(false).WithAvx(AvxLevel.Avx512).WithAutoFallback().SkipCheck().WithSearchDirectory("x").WithSearchDirectories(["y"]));
        NativeLibraryConfigContainer all = NativeLibraryConfig.All;
        Assert.Same(all, all.WithLibrary("x", null).WithCuda(false).WithVulkan().WithAvx(AvxLevel.None).WithAutoFallback(false).SkipCheck(false).WithSearchDirectory("x").WithSearchDirectories([]));
        Assert.True(all.DryRun(out INativeLibrary? library, out _));
        Assert.Equal(NativeEngine.Version, library!.Metadata!.Version);
    }

    [Fact]
    public void A_selecting_policy_is_asked_for_the_library()
    {
        // Not the program's own configuration: it is for the process, and other tests use it.
        var config = new NativeLibraryConfig(NativeLibraryName.LLama);
        var policy = new Policy(description => [new NativeLibraryFromPath("/none.so"), .. new DefaultNativeLibrarySelectingPolicy().Apply(description, SystemInfo.Get())]);
        Assert.Same(config, config.WithSelectingPolicy(policy).WithCuda(false).WithAvx(AvxLevel.Avx).WithSearchDirectory("here"));
        Assert.True(config.DryRun(out INativeLibrary? library));
        Assert.Equal(NativeEngine.Version, library!.Metadata!.Version);
        Assert.Equal((NativeLibraryName.LLama, false, true, AvxLevel.Avx), (policy.Asked!.Library, policy.Asked.UseCuda, policy.Asked.UseVulkan, policy.Asked.AvxLevel));
        Assert.Equal(["here"], policy.Asked.SearchDirectories!);

        config.WithSelectingPolicy(new Policy(_ => [new NativeLibraryFromPath("/none.so"), new NativeLibraryWithVulkan("1.3", NativeLibraryName.LLama, AvxLevel.Avx2, skipCheck: true)]));
        Assert.False(config.DryRun(out library));
        Assert.Null(library);
    }

    private sealed class Policy(Func<NativeLibraryConfig.Description, IEnumerable<INativeLibrary>> choose) : INativeLibrarySelectingPolicy
    {
        public NativeLibraryConfig.Description? Asked { get; private set; }

        public IEnumerable<INativeLibrary> Apply(NativeLibraryConfig.Description description, SystemInfo systemInfo, NativeLogConfig.LLamaLogCallback? logCallback = null) => choose(Asked = description);
    }

    [Theory]
    [InlineData(LLamaFtype.MOSTLY_IQ2_XXS, 19)]
    [InlineData(LLamaFtype.LLAMA_FTYPE_MOSTLY_TQ1_0, 36)]
    [InlineData(LLamaFtype.GUESSED, 1024)]
    [InlineData((LLamaFtype)77, 77)]
    public void Formats_that_the_engine_does_not_write_are_refused(LLamaFtype type, int number)
    {
        Assert.Equal(number, (int)type);
        string output = Path.Combine(Path.GetTempPath(), Guid.NewGuid() + ".gguf");
        var error = Assert.Throws<ArgumentException>(() => LLamaQuantizer.Quantize(InferenceTests.DemoModel.Path, output, type));
        Assert.Contains($"{type} is not available; the types are ", error.Message, StringComparison.Ordinal);
        Assert.Contains("Q4_K_M", error.Message, StringComparison.OrdinalIgnoreCase);
        Assert.False(File.Exists(output));
    }

    [Fact]
    public void Formats_that_the_engine_has_are_found_by_their_members()
    {
        string output = Path.Combine(Path.GetTempPath(), Guid.NewGuid() + ".gguf");
        try
        {
            foreach (LLamaFtype type in new[] { LLamaFtype.MOSTLY_Q8_0, LLamaFtype.MOSTLY_F16, LLamaFtype.ALL_F32 })
            {
                Assert.True(LLamaQuantizer.Quantize(InferenceTests.DemoModel.Path, output, type));
                using GgufFile file = GgufFile.Open(output);
                Assert.Equal((long)type, file.GetInteger("general.file_type"));
            }
        }
        finally
        {
            File.Delete(output);
        }
    }

    [Fact]
    public void A_cache_is_not_made_of_formats_that_it_cannot_have()
    {
        Assert.Equal(15, (int)GGMLType.GGML_TYPE_Q8_K);
        Assert.Throws<ArgumentException>(() => model.Weights.CreateContext(new ModelParams("") { TypeK = GGMLType.GGML_TYPE_I32 }));
    }
}
