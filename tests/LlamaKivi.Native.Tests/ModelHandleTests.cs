using Xunit;

namespace LlamaKivi.Native.Tests;

public class ModelHandleTests
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_model_describes_itself(bool useMmap)
    {
        using ModelHandle model = ModelHandle.Load(TestFiles.Model, useMmap: useMmap);
        ModelDescription description = model.Description;
        Assert.Equal("llama", description.Architecture);
        Assert.NotEmpty(description.WeightType);
        Assert.Equal(model.Gguf.GetInteger("llama.block_count"), description.LayerCount);
        Assert.Equal(model.Gguf.GetStrings("tokenizer.ggml.tokens")?.Length, description.VocabularySize);
        Assert.Equal(description.WeightBytes, model.Gguf.Tensors.Sum(tensor => tensor.Size));
    }

    [Fact]
    public void Progress_rises_to_one()
    {
        var fractions = new List<float>();
        ModelHandle.Load(TestFiles.Model, fractions.Add).Dispose();
        Assert.NotEmpty(fractions);
        Assert.Equal(fractions.Order(), fractions);
        Assert.Equal(1f, fractions[^1]);
    }

    [Fact]
    public void An_exception_in_the_progress_callback_reaches_the_caller()
    {
        var e = Assert.Throws<InvalidTimeZoneException>(
            () => ModelHandle.Load(TestFiles.Model, _ => throw new InvalidTimeZoneException("from the callback")));
        Assert.Equal("from the callback", e.Message);
    }

    [Fact]
    public void A_load_can_be_cancelled()
    {
        using var source = new CancellationTokenSource();
        var e = Assert.ThrowsAny<OperationCanceledException>(
            () => ModelHandle.Load(TestFiles.Model, _ => source.Cancel(), cancellationToken: source.Token));
        Assert.Equal(source.Token, e.CancellationToken);
    }

    [Fact]
    public void The_file_of_a_disposed_model_says_so()
    {
        ModelHandle model = ModelHandle.Load(TestFiles.Model);
        GgufFile gguf = model.Gguf;
        model.Dispose();
        Assert.Throws<ObjectDisposedException>(() => gguf.GetString("general.architecture"));
        Assert.Throws<ObjectDisposedException>(() => ContextHandle.Create(model));
    }
}
