using System.Text.Json;
using System.Text.RegularExpressions;
using System.Reflection;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using Microsoft.Extensions.Configuration;

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
        KvCache = KvCacheParams.Parse("kivi4") with { TypeV = KvCacheType.Q8_0, Group = 64, Residual = 256, Sinks = 8, RefinedEighths = 4, ResidualType = KvCacheType.F16, Undo = 8, MemoryBudget = 1L << 33 },
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
        Assert.Equal("""{"TypeK":"kivi4","TypeV":"q8_0","Group":64,"Residual":256,"Sinks":8,"RefinedEighths":4,"ResidualType":"f16","Undo":8,"MemoryBudget":8589934592}""", root.GetProperty("KvCache").GetRawText());
        Assert.Equal(16, root.GetProperty("TensorSplits").GetArrayLength());
        Assert.Contains("\"utf-8\"", JsonSerializer.Serialize(new ModelParams("x")), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(typeof(ModelParams))]
    [InlineData(typeof(InferenceParams))]
    public void Their_text_has_every_setting_and_no_helper_of_configuration(Type type)
    {
        string text = Regex.Replace(Activator.CreateInstance(type)!.ToString()!, @"(?<=\w = \w+ )\{[^{}]*\}", "");  // without nested records
        string[] printed = [.. Regex.Matches(text, @"(?<=[{,] )(\w+) = ").Select(match => match.Groups[1].Value)];
        string[] settings = [.. type.GetProperties().Where(property => property.PropertyType != typeof(IConfigurationSection) && !property.IsDefined(typeof(ObsoleteAttribute), inherit: false)).Select(property => property.Name)];
        Assert.Equal(settings.Order(StringComparer.Ordinal), printed.Order(StringComparer.Ordinal));
    }

    // The two above are all records of parameters with such helpers.
    [Fact]
    public void Records_with_sections_print_their_members_themselves()
    {
        Type[] records = [.. typeof(ModelParams).Assembly.GetTypes().Where(type => type.GetMethod("<Clone>$") is not null && type.GetProperties().Any(property => property.DeclaringType == type && property.PropertyType == typeof(IConfigurationSection)))];
        Assert.Equal(["InferenceParams", "ModelParams"], records.Select(type => type.Name).Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Their_text_shows_values()
    {
        string text = Example().ToString();
        Assert.StartsWith("ModelParams { ModelPath = abc/123, LoadMode = MemoryMap, Devices = [CUDA0, CPU], ContextSize = 42, ", text, StringComparison.Ordinal);
        Assert.EndsWith(", EncodingName = iso-8859-1 }", text, StringComparison.Ordinal);
        Assert.Contains("KvCache = KvCacheParams { TypeK = kivi4, TypeV = q8_0, Group = 64, Residual = 256, Sinks = 8, RefinedEighths = 4, ResidualType = f16, Undo = 8, MemoryBudget = 8589934592 }", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Settings_with_an_effect_are_written_first()
    {
        using JsonDocument document = JsonDocument.Parse(JsonSerializer.Serialize(Example()));
        string[] names = [.. document.RootElement.EnumerateObject().Select(property => property.Name)];
        Assert.Equal("ModelPath", names[0]);
        PropertyInfo[] written = [.. names.Select(name => typeof(ModelParams).GetProperty(name)!)];
        bool[] effectless = [.. written.Select(property => property.IsDefined(typeof(AcceptedAndIgnoredAttribute), inherit: false) || property.IsDefined(typeof(ObsoleteAttribute), inherit: false))];
        Assert.Equal(effectless.Order(), effectless);
        Assert.Contains(true, effectless);
    }

    [Theory]
    [InlineData("TypeK")]
    [InlineData("TypeV")]
    public void A_type_of_KvCache_alone_is_refused_with_where_to_set_it(string name)
    {
        string all = string.Join(", ", KvCacheType.Names);
        JsonException json = Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<ModelParams>($$"""{"{{name}}":"kivi2"}"""));
        Assert.StartsWith($"'kivi2' is not a GGMLType; TypeK and TypeV take f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 and q4_0. For other types leave it unset: KvCache takes {all}", json.Message, StringComparison.Ordinal);
        IConfiguration configuration = new ConfigurationBuilder().AddInMemoryCollection([new($"App:Model:{name}", "kivi2")]).Build();
        Exception bound = Assert.ThrowsAny<Exception>(() => configuration.GetSection("App:Model").Bind(new ModelParams("x"))).GetBaseException();
        Assert.Equal($"'App:Model:{name}' is 'kivi2'; it takes f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 and q4_0. For other types leave it unset: App:Model:KvCache:{name} takes {all}.", bound.Message);

        // What the messages advise works.
        Assert.Equal(KvCacheParams.Parse("kivi2"), JsonSerializer.Deserialize<ModelParams>("""{"KvCache":"kivi2"}""")!.KvCache);
        var parameters = new ModelParams("x") { KvCache = KvCacheParams.Parse("f16") };
        new ConfigurationBuilder().AddInMemoryCollection([new($"App:Model:KvCache:{name}", "kivi2")]).Build().GetSection("App:Model").Bind(parameters);
        Assert.Equal(KvCacheType.Kivi2, name == "TypeK" ? parameters.KvCache.TypeK : parameters.KvCache.TypeV);

        var ggml = new ModelParams("x") { TypeK = name == "TypeK" ? GGMLType.GGML_TYPE_Q2_K : null, TypeV = name == "TypeV" ? GGMLType.GGML_TYPE_Q2_K : null };
        ArgumentException e = Assert.Throws<ArgumentException>(() => ContextOptionsFactory.Create(ggml));
        Assert.Equal($"{name} is GGML_TYPE_Q2_K; it takes f32, f16, bf16, q8_0, q5_1, q5_0, q4_1 and q4_0. For other types leave it unset: KvCache.{name} takes {all}.", e.Message);
    }

    [Fact]
    public void Omitted_properties_keep_their_default()
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
    public void Invalid_values_are_named(string property, string value, string expected) =>
        Assert.Contains(
            expected,
            Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<ModelParams>($$"""{"ModelPath":"x","{{property}}":{{value}}}""")).Message,
            StringComparison.Ordinal);
}
