using System.Text;
using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests.Common;

/// <summary>Parameters as JSON.</summary>
public class ModelParamsTests
{
    private static ModelParams Example() => new("abc/123")
    {
        BatchSize = 17,
        ContextSize = 42,
        GpuLayerCount = 111,
        CheckTensors = true,
        Encoding = Encoding.Latin1,
        YarnScalingType = RopeScalingType.Linear,
        KvCache = KvCacheParams.Parse("kivi4") with { TypeV = KvCacheType.Q8_0, Group = 64, Residual = 256, Sinks = 8, Edition = 2, RefinedEighths = 4, ResidualType = KvCacheType.F16 },
        TensorSplits = { [0] = 3 },
        Devices = { "CUDA0", "CPU" },
        TensorBufferOverrides = { new("blk.*", "CPU") },
        MetadataOverrides = { new("hello", true), new("world", 17), new("cats", 1.5f), new("name", "x") },
    };

    [Fact]
    public void Come_back_as_they_were_written()
    {
        ModelParams expected = Example();
        ModelParams actual = JsonSerializer.Deserialize<ModelParams>(JsonSerializer.Serialize(expected))!;
        Assert.Equal<float>(expected.TensorSplits, actual.TensorSplits);
        Assert.Equal(expected.MetadataOverrides, actual.MetadataOverrides);
        Assert.Equal(("blk.*", "CPU"), (actual.TensorBufferOverrides.Single().Pattern, actual.TensorBufferOverrides.Single().BufferType));
        Assert.Equal(expected.Devices, actual.Devices);
        actual.Devices = expected.Devices;
        actual.TensorSplits = expected.TensorSplits;
        actual.MetadataOverrides = expected.MetadataOverrides;
        actual.TensorBufferOverrides = expected.TensorBufferOverrides;
        Assert.Equal(expected, actual);
    }

    [Fact]
    public void Are_written_with_the_names_and_numbers_that_files_have()
    {
        using JsonDocument document = JsonDocument.Parse(JsonSerializer.Serialize(Example()));
        JsonElement root = document.RootElement;
        Assert.Equal("iso-8859-1", root.GetProperty("Encoding").GetString());
        Assert.Equal(
            """[{"Type":2,"Key":"hello","Value":true},{"Type":0,"Key":"world","Value":17},{"Type":1,"Key":"cats","Value":1.5},{"Type":3,"Key":"name","Value":"x"}]""",
            root.GetProperty("MetadataOverrides").GetRawText());
        Assert.Equal("""[{"Pattern":"blk.*","BufferType":"CPU"}]""", root.GetProperty("TensorBufferOverrides").GetRawText());
        Assert.Equal("""{"TypeK":"kivi4","TypeV":"q8_0","Group":64,"Residual":256,"Sinks":8,"Edition":2,"RefinedEighths":4,"ResidualType":"f16"}""", root.GetProperty("KvCache").GetRawText());
        Assert.Equal(16, root.GetProperty("TensorSplits").GetArrayLength());
        Assert.Contains("\"utf-8\"", JsonSerializer.Serialize(new ModelParams("x")), StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_not_said_keeps_its_default()
    {
        ModelParams read = JsonSerializer.Deserialize<ModelParams>("""{"ModelPath":"x","GpuLayerCount":20,"Devices":[],"LoadMode":0,"Encoding":"utf-8"}""")!;
        Assert.Equal(new KvCacheParams(), read.KvCache);
        Assert.Equal(("x", 20, "utf-8"), (read.ModelPath, read.GpuLayerCount, read.Encoding.WebName));
    }

    [Fact]
    public void Overrides_of_earlier_versions_are_read() =>
        Assert.Equal(new MetadataOverride("a", 1.5f), JsonSerializer.Deserialize<MetadataOverride>("""{"Key":"a","Type":"float","Value":1.5}"""));

    [Theory]
    [InlineData("MetadataOverrides", """[{"Type":0,"Key":"a","Value":"x"}]""", "Type 0 does not fit the value \"x\"")]
    [InlineData("MetadataOverrides", """[{"Type":0,"Key":"a","Value":1.5}]""", "Type 0 does not fit the value 1.5")]
    [InlineData("MetadataOverrides", """[{"Type":9,"Key":"a","Value":1}]""", "types are 0 (integer)")]
    [InlineData("MetadataOverrides", """[{"Key":"a","Value":1}]""", "An object with Type, Key")]
    [InlineData("Encoding", "\"nonsense\"", "'nonsense' is not a known encoding")]
    [InlineData("Encoding", "3", "The JSON value could not be converted to System.String")]
    public void What_is_wrong_is_named(string property, string value, string expected) =>
        Assert.Contains(
            expected,
            Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<ModelParams>($$"""{"ModelPath":"x","{{property}}":{{value}}}""")).Message,
            StringComparison.Ordinal);
}
