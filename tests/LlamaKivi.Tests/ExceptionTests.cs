using LlamaKivi.Abstractions;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.Templates;

namespace LlamaKivi.Tests;

/// <summary>Failures of models, files, states, templates, grammars and full contexts are a <see cref="RuntimeError"/>; wrong use throws .NET's standard exceptions.</summary>
public sealed class ExceptionTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const string Long = "one two three four five six seven eight nine ten ";

    public static TheoryData<Type> ExceptionTypes =>
        [.. new[] { typeof(LLamaWeights), typeof(NativeEngine) }.SelectMany(type => type.Assembly.GetExportedTypes()).Where(type => type.IsAssignableTo(typeof(Exception)))];

    private static readonly Dictionary<string, (Type Expected, Func<ExceptionTests, Task> Fail)> Failures = new()
    {
        ["a file that is no model"] = (typeof(ModelLoadException), test => test.WithFileAsync(path => LLamaWeights.LoadFromFileAsync(new ModelParams(path)))),
        ["a GGUF file that is none"] = (typeof(ModelLoadException), test => test.WithFileAsync(path => Task.FromResult(GgufFile.Open(path)))),
        ["a file to quantize that is none"] = (typeof(ModelLoadException), test => test.WithFileAsync(path => Task.FromResult(ModelQuantizer.Quantize(path, path + ".out")))),
        ["a GPU that is required"] = (typeof(DeviceException), _ => LLamaWeights.LoadFromFileAsync(Params() with { RequireGpu = true, GpuLayerCount = 1 })),
        ["a context that does not fit in memory"] = (typeof(NativeOutOfMemoryException), test => Task.FromResult(
            MemoryFit.Apply(test.Model.Model.Gguf, Params() with { GpuLayerCount = 0 }, available: 1000))),
        ["a damaged state of a sequence"] = (typeof(StateLoadException), test => test.WithContextAsync(context => Do(() => context.Handle.SeqStateSet(0, new byte[100])))),
        ["a damaged state of a context"] = (typeof(StateLoadException), test => test.WithFileAsync(path => test.WithContextAsync(context => Do(() => context.LoadState(path))))),
        ["a damaged state of an executor"] = (typeof(StateLoadException), test => test.WithFileAsync(path => test.WithContextAsync(context => new InteractiveExecutor(context).LoadState(path)))),
        ["a template that is not valid"] = (typeof(TemplateException), _ => Do(() => new LLamaTemplate("{% if %}").Add("user", "x").Apply())),
        ["a template that does not exist"] = (typeof(TemplateNotFoundException), test => Do(() => new LLamaTemplate(test.Model.NativeHandle, "no such template"))),
        ["a grammar that is not valid"] = (typeof(GrammarException), _ => Do(new Grammar("root ::= (", "root").Validate)),
        ["a schema that is not valid"] = (typeof(GrammarException), _ => Do(() => Grammar.FromJsonSchema("""{"type":"nothing"}"""))),
        ["a prompt that is too long"] = (typeof(ContextOverflowException), test => test.WithContextAsync(context => ReadAsync(new InteractiveExecutor(context), string.Concat(Enumerable.Repeat(Long, 20))))),
        ["an embedding of a text that is too long"] = (typeof(ContextOverflowException), async test =>
        {
            using var embedder = new LLamaEmbedder(test.Model, Params());
            await embedder.GetEmbeddings(string.Concat(Enumerable.Repeat(Long, 20)));
        }
        ),
        ["a full cache"] = (typeof(KvCacheFullException), test => test.WithContextAsync(context => Do(() => context.Handle.Decode(new int[65])))),
        ["logits that are not numbers"] = (typeof(NumericErrorException), _ => Do(() => new GreedySamplingPipeline().Sample([float.NaN]))),
        ["logits that were not asked for"] = (typeof(GetLogitsInvalidIndexException), test => test.WithContextAsync(context => Do(() => _ = context.NativeHandle.GetLogitsIth(3).Length))),
        ["a conversation that was not prompted"] = (typeof(CannotSampleRequiresPromptException), async test =>
        {
            using var executor = new BatchedExecutor(test.Model, Params());
            using Conversation conversation = executor.Create();
            await Do(() => conversation.Sample(new GreedySamplingPipeline()));
        }
        ),

        ["null"] = (typeof(ArgumentNullException), _ => Do(() => LLamaWeights.LoadFromFile(null!))),
        ["no path"] = (typeof(ArgumentException), _ => Do(() => LLamaWeights.LoadFromFile(new ModelParams()))),
        ["a path of no file"] = (typeof(FileNotFoundException), _ => LLamaWeights.LoadFromFileAsync(new ModelParams("no such file"))),
        ["a token that is none"] = (typeof(ArgumentException), test => test.WithContextAsync(context => Do(() => context.Handle.Decode([-1])))),
        ["a cache's group"] = (typeof(ArgumentException), test => Do(() => test.Model.CreateContext(Params() with { KvCache = new KvCacheParams { Group = 33 } }))),
        ["a cache type's name"] = (typeof(ArgumentException), _ => Do(() => KvCacheParams.Parse("kivi5"))),
        ["a size"] = (typeof(ArgumentOutOfRangeException), test => Do(() => test.Model.CreateContext(Params() with { BatchSize = 0 }))),
        ["a sampling setting"] = (typeof(ArgumentOutOfRangeException), _ => Do(() => new DefaultSamplingPipeline { TopP = 3 })),
        ["a context that was disposed of"] = (typeof(ObjectDisposedException), test => test.WithContextAsync(context => Do(() =>
        {
            context.Dispose();
            context.Handle.Decode([1]);
        }))),
        ["a setting that is not implemented"] = (typeof(NotSupportedException), test => Do(() => test.Model.CreateContext(Params() with { AttentionType = LLamaAttentionType.NonCausal }))),
        ["a pooling that an embedder does not have"] = (typeof(NotSupportedException), test => Do(() => new LLamaEmbedder(test.Model, Params() with { PoolingType = LLamaPoolingType.Rank }))),
        ["bare logits where a context is needed"] = (typeof(InvalidOperationException), _ => Do(() => new DefaultSamplingPipeline { PreventEOS = true }.Sample([1f, 2f]))),
    };

    public static TheoryData<string> FailureNames => [.. Failures.Keys];

    private LLamaWeights Model => model.Weights;

    [Theory]
    [MemberData(nameof(ExceptionTypes))]
    public void Every_exception_of_the_library_is_a_RuntimeError(Type type)
    {
        Assert.True(type.IsAssignableTo(typeof(RuntimeError)), $"{type} derives from {type.BaseType}");
        Assert.Equal(typeof(Exception), typeof(RuntimeError).BaseType);
    }

    [Theory]
    [MemberData(nameof(FailureNames))]
    public async Task A_failure_has_its_type(string failure)
    {
        (Type expected, Func<ExceptionTests, Task> fail) = Failures[failure];
        Assert.SkipWhen(expected == typeof(DeviceException) && NativeEngine.TryDescribeDevice(out _, out _), "There is a usable GPU.");
        Exception? e = await Record.ExceptionAsync(() => fail(this));
        Assert.Equal(expected, e?.GetType());
        Assert.Equal(expected.Namespace!.StartsWith("LlamaKivi", StringComparison.Ordinal), e is RuntimeError);
        Assert.NotEmpty(e!.Message);
    }

    private static ModelParams Params() => new(InferenceTests.DemoModel.Path) { ContextSize = 64, Threads = 1, GpuLayerCount = 0 };

    private static Task Do(Action action)
    {
        action();
        return Task.CompletedTask;
    }

    private static async Task ReadAsync(ILLamaExecutor executor, string prompt)
    {
        await foreach (string _ in executor.InferAsync(prompt, new InferenceParams { MaxTokens = 1 }))
        {
        }
    }

    private async Task WithContextAsync(Func<LLamaContext, Task> use)
    {
        using LLamaContext context = Model.CreateContext(Params());
        await use(context);
    }

    private async Task WithFileAsync(Func<string, Task> use)
    {
        string path = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(path, "{\"this\": \"is something else, and long enough for every header\"}");
            await use(path);
        }
        finally
        {
            File.Delete(path);
        }
    }
}
