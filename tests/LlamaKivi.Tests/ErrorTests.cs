using System.Diagnostics;
using System.Runtime.InteropServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using LlamaKivi.TestHelpers;
using Microsoft.Extensions.Logging;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Collection of tests that measure memory or time and therefore run without other tests.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public static class Alone;

/// <summary>Failures throw specific exceptions with advice; logging; concurrent use.</summary>
[Collection(nameof(Alone))]
public sealed class ErrorTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private readonly LLamaWeights _weights = model.Weights;

    private static ModelParams Params(uint size = 256) => new(InferenceTests.DemoModel.Path) { ContextSize = size, Threads = 1 };

    [Fact]
    public void A_full_cache_tells_how_much_is_missing()
    {
        using LLamaContext context = _weights.CreateContext(Params());
        context.Handle.Decode(new int[250]);
        var error = Assert.Throws<KvCacheFullException>(() => context.Handle.Decode(new int[10]));
        Assert.Equal(10, error.Needed);
        Assert.Equal(6, error.Available);
        Assert.Contains("250 of 256", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_is_not_a_model_is_named()
    {
        string path = Path.GetTempFileName();
        File.WriteAllText(path, "GGUF, but not really");
        foreach (string file in (string[])[path, Path.GetTempPath()])
        {
            var error = Assert.ThrowsAny<LoadWeightsFailedException>(() => LLamaWeights.LoadFromFile(new ModelParams(file)));
            Assert.IsType<ModelLoadException>(error);
            Assert.IsAssignableFrom<RuntimeError>(error);
            Assert.Equal(file, error.ModelPath);
            Assert.Contains(file, error.Message, StringComparison.Ordinal);
        }

        File.Delete(path);
    }

    [Fact]
    public async Task A_file_that_is_not_there_is_named()
    {
        foreach (string file in (string[])[Path.Combine(Path.GetTempPath(), "none.gguf"), Path.Combine(Path.GetTempPath(), "none", "none.gguf")])
        {
            var error = Assert.Throws<FileNotFoundException>(() => LLamaWeights.LoadFromFile(new ModelParams(file)));
            Assert.Equal(file, error.FileName);
            Assert.Contains(file, error.Message, StringComparison.Ordinal);
            error = await Assert.ThrowsAsync<FileNotFoundException>(() => LLamaWeights.LoadFromFileAsync(new ModelParams(file)));
            Assert.Equal(file, error.FileName);
        }
    }

    [Fact]
    public void Values_out_of_range_are_argument_errors()
    {
        using LLamaContext context = _weights.CreateContext(Params());
        Assert.Throws<ArgumentException>(() => context.Handle.Decode([-1]));
        Assert.Throws<ArgumentException>(() => context.Handle.Logits(3));
        Assert.Throws<ArgumentException>(() => context.Handle.Embedding(0));
        Assert.Throws<ArgumentException>(() => _weights.CreateContext(new ModelParams("") { KvCache = new KvCacheParams { Group = 33 } }));
        Assert.Throws<StateLoadException>(() => context.Handle.SeqStateSet(0, new byte[100]));
        Assert.Throws<NumericErrorException>(() => new GreedySamplingPipeline().Sample([float.NaN]));
        context.Dispose();
        Assert.Throws<ObjectDisposedException>(() => context.Handle.Decode([1]));
    }

    [Fact]
    public void The_engine_writes_its_log_to_a_logger()
    {
        var logger = new Lines();
        NativeLibraryConfig.All.WithLogCallback(logger);
        try
        {
            _weights.CreateContext(Params()).Dispose();
        }
        finally
        {
            NativeLibraryConfig.All.WithLogCallback((ILogger?)null);
        }

        _weights.CreateContext(Params(300)).Dispose();
        Assert.Contains(logger.Written, line => line.Contains("context of 256 tokens", StringComparison.Ordinal));
        Assert.DoesNotContain(logger.Written, line => line.Contains("context of 300 tokens", StringComparison.Ordinal));
        Assert.True(NativeLibraryConfig.All.DryRun(out INativeLibrary? engine, out INativeLibrary? other));
        Assert.Equal(NativeEngine.Version, engine!.Metadata!.Version);
        Assert.Null(other);
        var told = new List<string>();
        string library = engine.Prepare(SystemInfo.Get(), (_, line) => told.Add(line)).First();
        Assert.True(File.Exists(library), library);
        Assert.Contains(told, line => line.Contains(library, StringComparison.Ordinal));
        NativeApi.llama_empty_call();
    }

    [Fact]
    public async Task Without_a_usable_GPU_the_CPU_computes_and_says_so_or_loading_fails()
    {
        Assert.SkipWhen(NativeEngine.TryDescribeDevice(out _, out string? reason), "There is a usable GPU.");
        Gpu.AssertNone(reason);
        ModelParams parameters = new(InferenceTests.DemoModel.Path) { GpuLayerCount = 5 };
        var logger = new Lines();
        using (LLamaWeights weights = await LLamaWeights.LoadFromFileAsync(parameters, TestContext.Current.CancellationToken, logger: logger))
        {
            Assert.Equal(0, weights.GpuLayerCount);
            Assert.Contains(logger.Written, line => line.StartsWith("5 layers were requested on a GPU", StringComparison.Ordinal) && line.Contains(reason!, StringComparison.Ordinal));
        }

        logger.Written.Clear();
        (await LLamaWeights.LoadFromFileAsync(parameters with { GpuLayerCount = -1 }, TestContext.Current.CancellationToken, logger: logger)).Dispose();
        Assert.Empty(logger.Written);
        DeviceException error = await Assert.ThrowsAsync<DeviceException>(() => LLamaWeights.LoadFromFileAsync(parameters with { RequireGpu = true }));
        Assert.Equal(reason, error.Message);
        (await LLamaWeights.LoadFromFileAsync(parameters with { GpuLayerCount = 0, RequireGpu = true })).Dispose();
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(0, 3)]
    [InlineData(512, 0)]
    [InlineData(512, 9)]
    public void A_long_prefill_stops_within_a_layer(int position, int layer)
    {
        using LLamaContext context = _weights.CreateContext(Params(2048));
        using var stop = new CancellationTokenSource();
        int after = 0;  // layers after the cancellation
        context.Handle.Observe(seen =>
        {
            after += stop.IsCancellationRequested ? 1 : 0;
            if (seen.Positions[0] == position && seen.Layer == layer)
            {
                stop.Cancel();
            }
        });
        Assert.ThrowsAny<OperationCanceledException>(() => context.Handle.Decode(new int[2000], cancellationToken: stop.Token));
        Assert.Equal((true, 0), (stop.IsCancellationRequested, after));
        Assert.Equal(0, context.Handle.SeqLength(0));
        context.Handle.Observe(null);
        context.Handle.Decode([1, 2, 3]);
        Assert.Equal(3, context.Handle.SeqLength(0));
    }

    // LLAMA_KIVI_STRESS_SECONDS sets the duration.
    [Fact]
    public async Task Threads_share_a_model_without_errors_or_leaks()
    {
        double seconds = double.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_STRESS_SECONDS"), out double given) ? given : 4;
        const int Threads = 8;
        string expected = await TextAsync(0);
        await Task.WhenAll(Enumerable.Range(0, Threads).Select(TextAsync));  // allocates one-time memory before measuring
        (long managed, long native) = Memory();
        long end = Stopwatch.GetTimestamp() + (long)(seconds * Stopwatch.Frequency);
        int[] runs = await Task.WhenAll(Enumerable.Range(0, Threads).Select(thread => Task.Run(async () =>
        {
            int n = 0;
            for (; n == 0 || Stopwatch.GetTimestamp() < end; n++)
            {
                Assert.Equal(expected, await TextAsync(thread));
            }

            return n;
        })));
        (long managedAfter, long nativeAfter) = Memory();
        TestContext.Current.TestOutputHelper?.WriteLine(
            $"{runs.Sum()} contexts in {seconds} s; managed {managed / 1048576.0:F1} -> {managedAfter / 1048576.0:F1} MiB, resident {native / 1048576.0:F1} -> {nativeAfter / 1048576.0:F1} MiB");
        Assert.True(managedAfter - managed < 4 << 20, $"managed memory grew from {managed} to {managedAfter}");
        // Leaked contexts take some MiB each and would add up to gigabytes. On other platforms than Linux, the figure includes the allocator's reserve.
        Assert.True(nativeAfter - native < (OperatingSystem.IsLinux() ? 48 : 256) << 20, $"resident memory grew from {native} to {nativeAfter}");

        async Task<string> TextAsync(int thread)
        {
            using LLamaContext context = _weights.CreateContext(Params());
            var executor = new InteractiveExecutor(context);
            string text = "";
            await foreach (string piece in executor.InferAsync("The garbage collector", new InferenceParams { MaxTokens = 24, SamplingPipeline = new GreedySamplingPipeline() }))
            {
                text += piece;
            }

            return text;
        }

        static (long Managed, long Native) Memory()
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);  // returns reserved memory to the system
            if (OperatingSystem.IsLinux())
            {
                _ = ReleaseReserve(0);
            }

            using var process = Process.GetCurrentProcess();
            return (GC.GetTotalMemory(true), process.WorkingSet64);
        }
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(0.8f)]
    public void Decoding_allocates_nothing_once_it_runs(float temperature)
    {
        using ISamplingPipeline sampling = temperature == 0 ? new GreedySamplingPipeline() : new DefaultSamplingPipeline { Temperature = temperature, Seed = 1 };
        using LLamaContext context = _weights.CreateContext(Params(2048));
        int token = 1;
        Steps(300);

        Assert.Equal(0, Allocations.Of(() => Steps(100)));

        void Steps(int n)
        {
            Span<int> one = stackalloc int[1];
            for (int i = 0; i < n; i++)
            {
                one[0] = token;
                context.Handle.Decode(one);
                token = (int)sampling.Sample(context.NativeHandle, 0);
            }
        }
    }

    // Returns the C library's freed memory of all threads to the system.
    [DllImport("libc", EntryPoint = "malloc_trim")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int ReleaseReserve(nuint keep);

    private sealed class Lines : ILogger
    {
        public List<string> Written { get; } = [];

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            lock (Written)
            {
                Written.Add(formatter(state, exception));
            }
        }
    }
}
