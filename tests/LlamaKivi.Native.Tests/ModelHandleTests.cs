using LlamaKivi.TestHelpers;
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

    // The error of a full device. On a machine with a GPU the native tests provoke it (cuda_test.cpp).
    [Fact]
    public void A_full_device_tells_how_much_was_asked_and_free()
    {
        var error = Assert.IsType<OutOfDeviceMemoryException>(NativeStatus.ToException(lk_status.LK_OUT_OF_DEVICE_MEMORY, "full", 200, 100));
        Assert.Equal((200, 100, EngineStatus.OutOfDeviceMemory), (error.Needed, error.Available, error.Status));
        Assert.IsType<DeviceException>(NativeStatus.ToException(lk_status.LK_DEVICE_ERROR, "none"));
    }

    [Fact]
    public void Layers_on_a_GPU_that_is_not_there_are_an_error_that_says_why()
    {
        Assert.SkipWhen(NativeEngine.TryDescribeDevice(out _, out string? reason), "There is a usable GPU.");
        Gpu.AssertNone(reason);
        Assert.Equal(reason, Assert.Throws<DeviceException>(() => ModelHandle.Load(TestFiles.Model, gpuLayers: -1)).Message);
    }

    [Theory]
    [InlineData(false, null, "/dev/null", "/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia")]
    [InlineData(true, null, "/dev/nvidia0")]
    [InlineData(true, "2", "/dev/null", "/dev/nvidia11")]
    [InlineData(true, null, "/dev/dxg")]
    [InlineData(false, "", "/dev/nvidia0")]
    [InlineData(false, "-1", "/dev/nvidia0")]
    public void A_GPU_is_seen_by_its_device_file(bool present, string? visible, params string[] files) =>
        Assert.Equal(present, Gpu.IsPresent(files, visible));
}
