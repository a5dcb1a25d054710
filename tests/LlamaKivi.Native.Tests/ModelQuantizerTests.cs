using Xunit;

namespace LlamaKivi.Native.Tests;

public sealed class ModelQuantizerTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private string Output => Path.Combine(_folder.Path, "out.gguf");

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void A_quantized_model_loads_and_keeps_its_metadata()
    {
        var fractions = new List<float>();
        QuantizeResult result = ModelQuantizer.Quantize(TestFiles.Model, Output, new QuantizeOptions { Type = "q3_k_m", OutputType = "Q4_0" }, fractions.Add);
        Assert.Equal(fractions.Order(), fractions);
        Assert.Equal(1f, fractions[^1]);
        Assert.True(result.Requantized > 40 && result.BytesAfter < result.BytesBefore, result.ToString());
        using ModelHandle before = ModelHandle.Load(TestFiles.Model);
        using ModelHandle after = ModelHandle.Load(Output);
        Assert.Equal(result.BytesAfter, after.Description.WeightBytes);
        Assert.Equal(before.Description.ParameterCount, after.Description.ParameterCount);
        Assert.Equal(before.Gguf.GetStrings("tokenizer.ggml.tokens"), after.Gguf.GetStrings("tokenizer.ggml.tokens"));
        Assert.Equal(12, after.Gguf.GetInteger("general.file_type"));
        using ContextHandle context = ContextHandle.Create(after, new ContextOptions { ContextSize = 64, Threads = 1 });
        context.Decode([1, 2, 3]);
        Assert.True(float.IsFinite(context.Logits(2)[0]));
    }

    [Fact]
    public void Tensors_that_fall_back_are_listed_by_name_and_type()
    {
        string narrow = Path.Combine(_folder.Path, "narrow.gguf");
        new GgufWriter().Add("general.architecture", "other")
            .AddTensor("output.weight", [96, 4], new float[96 * 4])
            .AddTensor("blk.0.ffn_up.weight", [96, 4], new float[96 * 4])
            .AddTensor("blk.0.ffn_gate.weight", [256, 1], new float[256])
            .Write(narrow);
        QuantizeResult result = ModelQuantizer.Quantize(narrow, Output, new QuantizeOptions { Type = "Q4_K_S" });
        Assert.Equal(
            [new QuantizeFallback("output.weight", "Q6_K", "Q8_0"), new QuantizeFallback("blk.0.ffn_up.weight", "Q4_K", "Q5_0")], result.Fallbacks);
        Assert.Equal(2, result.Fallback);
        // Also of tensors that have the wider type already.
        Assert.Equal(result.Fallbacks, ModelQuantizer.Quantize(Output, Path.Combine(_folder.Path, "again.gguf"), new QuantizeOptions { Type = "Q4_K_S" }).Fallbacks);
        var e = Assert.Throws<ArgumentException>(() => ModelQuantizer.Quantize(narrow, Output, new QuantizeOptions { Type = "Q8_0", OutputType = "q6_k" }));
        Assert.Contains("tensor 'output.weight'", e.Message, StringComparison.Ordinal);
        Assert.Contains("types that fit: F32, F16, Q4_0", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_types_are_known_by_name()
    {
        Assert.Contains("Q4_K_M", ModelQuantizer.Types);
        Assert.Contains("BF16", ModelQuantizer.Types);
        var e = Assert.Throws<ArgumentException>(() => ModelQuantizer.Quantize(TestFiles.Model, Output, new QuantizeOptions { Type = "Q4_X" }));
        Assert.Contains("'Q4_X' is not known; use one of F32, F16", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Cancelling_and_exceptions_leave_no_file()
    {
        using var source = new CancellationTokenSource();
        var stopped = Assert.ThrowsAny<OperationCanceledException>(
            () => ModelQuantizer.Quantize(TestFiles.Model, Output, progress: _ => source.Cancel(), cancellationToken: source.Token));
        Assert.Equal(source.Token, stopped.CancellationToken);
        Assert.Throws<InvalidTimeZoneException>(
            () => ModelQuantizer.Quantize(TestFiles.Model, Output, progress: _ => throw new InvalidTimeZoneException()));
        Assert.Empty(Directory.GetFiles(_folder.Path));
    }

    [Fact]
    public void Impossible_conversions_are_refused_with_a_reason()
    {
        Assert.Throws<ArgumentException>(() => ModelQuantizer.Quantize(TestFiles.Model, TestFiles.Model));
        Assert.Throws<ModelLoadException>(() => ModelQuantizer.Quantize(Path.Combine(_folder.Path, "none.gguf"), Output));
        var e = Assert.Throws<ArgumentException>(
            () => ModelQuantizer.Quantize(TestFiles.Model, Output, new QuantizeOptions { Type = "Q8_0", AllowRequantize = false }));
        Assert.Contains("already quantized", e.Message, StringComparison.Ordinal);
    }
}
