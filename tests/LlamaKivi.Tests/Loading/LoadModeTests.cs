using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

/// <summary>How and where a model is loaded, by LLamaSharp's names of 0.30 and those before.</summary>
public sealed class LoadModeTests
{
#pragma warning disable CS0618 // the old names
    [Theory]
    [InlineData(LLamaLoadMode.None, false, false, false)]
    [InlineData(LLamaLoadMode.MemoryMap, true, false, false)]
    [InlineData(LLamaLoadMode.MemoryLock, false, true, false)]
    [InlineData(LLamaLoadMode.MemoryMapAndLock, true, true, false)]
    [InlineData(LLamaLoadMode.DirectIO, false, false, true)]
    public void The_old_switches_are_views_of_the_mode(LLamaLoadMode mode, bool map, bool isLocked, bool direct)
    {
        var parameters = new ModelParams("x") { LoadMode = mode };
        Assert.Equal((map, isLocked, direct), (parameters.UseMemorymap, parameters.UseMemoryLock, parameters.UseDirectIO));
        IModelParams general = parameters;
        Assert.Equal((map, isLocked, direct), (general.UseMemorymap, general.UseMemoryLock, general.UseDirectIO));
        var switched = new ModelParams("x") { UseMemorymap = map, UseMemoryLock = isLocked, UseDirectIO = direct };
        Assert.Equal(mode, switched.LoadMode);
        Assert.Equal(mode, JsonSerializer.Deserialize<ModelParams>(JsonSerializer.Serialize(parameters))!.LoadMode);
        Assert.Equal(mode, JsonSerializer.Deserialize<ModelParams>($$"""{"UseDirectIO":{{(direct ? "true" : "false")}},"UseMemoryLock":{{(isLocked ? "true" : "false")}}{{(direct ? "" : $",\"UseMemorymap\":{(map ? "true" : "false")}")}}}""")!.LoadMode);
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path) { LoadMode = mode, VocabOnly = true });
    }
#pragma warning restore CS0618

    [Fact]
    public void Devices_that_are_not_there_are_refused_by_name()
    {
        var parameters = new ModelParams(InferenceTests.DemoModel.Path) { Devices = ["CPU", "Vulkan7"], VocabOnly = true };
        var error = Assert.Throws<UnknownDeviceException>(() => LLamaWeights.LoadFromFile(parameters));
        Assert.Equal("Vulkan7", error.RequestedDevice);
        Assert.Contains("CPU", error.AvailableDevices);
        Assert.Contains("'Vulkan7'", error.Message, StringComparison.Ordinal);
        parameters.Devices = ["cpu"];
        using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters with { VocabOnly = false, GpuLayerCount = 4 });
        Assert.Equal(0, weights.GpuLayerCount);
    }

    [Fact]
    public void A_context_for_several_tokens_at_once_is_refused()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path));
        var error = Assert.Throws<NotSupportedException>(() => weights.CreateContext(new ModelParams("") { ContextSize = 64, ContextType = LLamaContextType.Mtp }));
        Assert.Contains("ContextType is Mtp", error.Message, StringComparison.Ordinal);
    }
}
