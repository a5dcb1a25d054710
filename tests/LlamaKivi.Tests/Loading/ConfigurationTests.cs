using System.Reflection;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;

namespace LlamaKivi.Tests.Common;

/// <summary>Every property of the parameters is bound by name or rejected with its path: from JSON files and environment variables, with System.Text.Json, the reflection binder and the source generator.</summary>
public sealed class ConfigurationTests
{
    private const string EnvironmentPrefix = "LLAMA_KIVI_CONFIGURATION_TEST_";

    // Values of types other than numbers, Booleans, strings and enumerations: as JSON, and the expected object.
    private static readonly Dictionary<string, (string Json, object Value)> Samples = new()
    {
        ["ModelParams.KvCache"] = ("""{"TypeK":"kivi3","TypeV":"q8_0","Group":64,"Residual":256,"Sinks":8,"RefinedEighths":4,"ResidualType":"q8_0","Undo":8,"MemoryBudget":8589934592}""",
            new KvCacheParams { TypeK = KvCacheType.Kivi3, TypeV = KvCacheType.Q8_0, Group = 64, Residual = 256, Sinks = 8, RefinedEighths = 4, ResidualType = KvCacheType.Q8_0, Undo = 8, MemoryBudget = 1L << 33 }),
        ["ModelParams.TypeK"] = ("\"q8_0\"", GGMLType.GGML_TYPE_Q8_0),
        ["ModelParams.TypeV"] = ("\"GGML_TYPE_Q4_0\"", GGMLType.GGML_TYPE_Q4_0),
        ["ModelParams.TensorSplits"] = ("[0.25,0.75]", new TensorSplitsCollection([0.25f, 0.75f])),
        ["ModelParams.TensorBufferOverrides"] = ("""[{"Pattern":"blk.*","BufferType":"CPU"}]""", new List<TensorBufferOverride> { new("blk.*", "CPU") }),
        ["ModelParams.MetadataOverrides"] = (
            """[{"Type":2,"Key":"a","Value":true},{"Type":"int","Key":"b","Value":17},{"Type":"float","Key":"c","Value":1.5},{"Type":3,"Key":"d","Value":"x"}]""",
            new List<MetadataOverride> { new("a", true), new("b", 17), new("c", 1.5f), new("d", "x") }),
        ["ModelParams.Devices"] = ("""["CUDA0","CPU"]""", new List<string> { "CUDA0", "CPU" }),
        ["ModelParams.Encoding"] = ("\"iso-8859-1\"", Encoding.Latin1),
        ["InferenceParams.AntiPrompts"] = ("""["User:","\n"]""", new[] { "User:", "\n" }),
        ["InferenceParams.SamplingPipeline"] = (
            """{"Temperature":0.5,"Seed":7,"Mirostat":"Mirostat2","Grammar":"root ::= \"a\"","DryBreakers":[13]}""",
            new DefaultSamplingPipeline
            {
                Temperature = 0.5f,
                Seed = 7,
                Mirostat = MirostatType.Mirostat2,
                Grammar = new Grammar("root ::= \"a\"", "root"),
                DryBreakers = new HashSet<LLamaToken> { 13 },
            }),
        ["DefaultSamplingPipeline.LogitBias"] = ("""{"7":-1.5,"9":"-infinity"}""", new Dictionary<LLamaToken, float> { [7] = -1.5f, [9] = float.NegativeInfinity }),
        ["DefaultSamplingPipeline.Grammar"] = ("""{"Gbnf":"start ::= \"a\"","Root":"start"}""", new Grammar("start ::= \"a\"", "start")),
        ["DefaultSamplingPipeline.DryBreakers"] = ("[13,2]", new HashSet<LLamaToken> { 13, 2 }),
        ["DefaultSamplingPipeline.DryBase"] = ("1.5", 1.5f),
    };

    private static readonly string[] Ways = ["reflection", "generator", "Configure by reflection", "Configure by the generator"];

    private static readonly Action<IConfiguration, object?> BindByReflection = ConfigurationBinder.Bind;

    /// <summary>Every settable property except the section properties, which configuration binds under another property's name.</summary>
    public static TheoryData<string> Properties => [.. new[] { typeof(ModelParams), typeof(InferenceParams), typeof(DefaultSamplingPipeline) }.SelectMany(type =>
        type.GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => property.CanWrite && property.PropertyType != typeof(IConfigurationSection) && property.Name != nameof(ModelParams.EncodingName))
            .Select(property => $"{type.Name}.{property.Name}"))];

    [Theory]
    [MemberData(nameof(Properties))]
    public void A_property_is_bound_by_its_name(string property)
    {
        (string type, string name) = (property.Split('.')[0], property.Split('.')[1]);
        (string json, object value) = Sample(property);
        object expected = Create(type);
        PropertyInfo info = expected.GetType().GetProperty(name)!;
        info.SetValue(expected, value);
        string text = Written(expected, name);
        Assert.NotEqual(text, Written(Create(type), name));

        IConfiguration file = Json(Section(name, json));
        foreach (string way in Ways)
        {
            Assert.Equal((way, text), (way, Written(Bind(way, type, file), name)));
        }

        Assert.Equal(text, Written(Bind("reflection", type, FromEnvironment(file)), name));
        Assert.Equal(text, Written(JsonSerializer.Deserialize($"{{\"{name}\":{json}}}", expected.GetType())!, name));
        Assert.Equal(text, Written(JsonSerializer.Deserialize(JsonSerializer.Serialize(expected, expected.GetType()), expected.GetType())!, name));
        JsonTypeInfo generated = ParametersJson.Default.GetTypeInfo(expected.GetType())!;
        Assert.Equal(text, Written(JsonSerializer.Deserialize($"{{\"{name}\":{json}}}", generated)!, name));
        Assert.Equal(text, Written(JsonSerializer.Deserialize(JsonSerializer.Serialize(expected, generated), generated)!, name));
        Assert.Equal(text, Written(JsonSerializer.Deserialize(JsonSerializer.Serialize(expected, expected.GetType(), JsonSerializerOptions.Web), expected.GetType(), JsonSerializerOptions.Web)!, name));
    }

    /// <summary>Properties that do not accept every string.</summary>
    public static TheoryData<string> PropertiesOfAKind =>
        [.. Properties.Select(row => row.Data).Where(property => property is not ("ModelParams.ModelPath" or "ModelParams.Devices" or "InferenceParams.AntiPrompts" or "InferenceParams.PrefixKey" or "DefaultSamplingPipeline.Grammar"))];

    [Theory]
    [MemberData(nameof(PropertiesOfAKind))]
    public void A_value_of_the_wrong_kind_is_refused_with_its_path(string property)
    {
        (string type, string name) = (property.Split('.')[0], property.Split('.')[1]);
        PropertyInfo info = Create(type).GetType().GetProperty(name)!;
        Refused(type, Section(name, "\"no such value\""), $"Section:{name}");
        var e = Assert.Throws<JsonException>(() => JsonSerializer.Deserialize($$"""{"{{name}}":"no such value"}""", info.DeclaringType!));
        Assert.True(e.Path is { } path && path.Contains(name, StringComparison.Ordinal) || e.Message.Contains("no such value", StringComparison.Ordinal), e.ToString());
    }

    [Theory]
    [InlineData("ModelParams", """{"KvCache":"kivi9"}""", "'Section:KvCache' is 'kivi9'", "f16, kivi4, kivi2, kivi4-paper, kivi2-paper, q8_0, q4_0, f32, bf16, q5_1, q5_0, q4_1, iq4_nl, kivi3")]
    [InlineData("ModelParams", """{"KvCache":{"TypeK":"kivi9"}}""", "'Section:KvCache:TypeK' is 'kivi9'", "f16, kivi4, kivi2, kivi4-paper, kivi2-paper, q8_0, q4_0, f32, bf16, q5_1, q5_0, q4_1, iq4_nl, kivi3")]
    [InlineData("ModelParams", """{"KvCache":{"TypK":"kivi2"}}""", "'Section:KvCache:TypK' is not a known setting", "TypeK, TypeV, Group, Residual, Sinks, RefinedEighths, ResidualType, Undo, MemoryBudget")]
    [InlineData("ModelParams", """{"KvCache":{"Group":"many"}}""", "'Section:KvCache:Group' is 'many'", "integer")]
    [InlineData("ModelParams", """{"KvCache":{"Group":48}}""", "'Section:KvCache:Group' is ", "it must be 16, 32, 64 or 128")]
    [InlineData("ModelParams", """{"KvCache":{"RefinedEighths":9}}""", "'Section:KvCache:RefinedEighths' is ", "it must be 0 to 8")]
    [InlineData("ModelParams", """{"KvCache":{"Undo":65}}""", "'Section:KvCache:Undo' is ", "it must be 0 to 64")]
    [InlineData("ModelParams", """{"KvCache":{"MemoryBudget":"64M"}}""", "'Section:KvCache:MemoryBudget' is '64M'", "a number of bytes")]
    [InlineData("ModelParams", """{"KvCache":{"ResidualType":"q4_0"}}""", "'Section:KvCache:ResidualType' is ", "it must be f16 or q8_0")]
    [InlineData("ModelParams", """{"KvCache":{"ResidualType":"q9"}}""", "'Section:KvCache:ResidualType' is 'q9'", "f16")]
    [InlineData("ModelParams", """{"KvCache":{"TypeV":"kivi2-paper","Residual":100}}""", "'Section:KvCache:Residual' is 100", "such as 96")]
    [InlineData("ModelParams", """{"KvCache":{"Residual":65537}}""", "'Section:KvCache:Residual' is 65537", "it must be 1 to 65536")]
    [InlineData("ModelParams", """{"KvCache":{"TypeK":"q4_0","RefinedEighths":4}}""", "'Section:KvCache:RefinedEighths' is 4", "the keys are q4_0")]
    [InlineData("ModelParams", """{"KvCache":{"TypeK":"q4_0","TypeV":"q4_0","ResidualType":"q8_0"}}""", "unless 'Section:KvCache:Residual' sets one", "leave 'Section:KvCache:ResidualType' out")]
    [InlineData("ModelParams", """{"TypeK":"kivi2"}""", "'Section:TypeK' is 'kivi2'", "KvCache:TypeK takes")]
    [InlineData("ModelParams", """{"TensorSplits":[0.5,"half"]}""", "'Section:TensorSplits:1' is 'half'", "number")]
    [InlineData("ModelParams", """{"TensorSplits":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}""", "'Section:TensorSplits'", "the maximum is 16")]
    [InlineData("ModelParams", """{"MetadataOverrides":[{"Key":"a","Type":"int","Value":"x"}]}""", "'Section:MetadataOverrides:0:Value' is 'x'", "integer")]
    [InlineData("ModelParams", """{"MetadataOverrides":[{"Key":"a","Type":"long","Value":"1"}]}""", "'Section:MetadataOverrides:0:Type' is 'long'", "types are")]
    [InlineData("ModelParams", """{"MetadataOverrides":[{"Value":"1"}]}""", "'Section:MetadataOverrides:0' has no Key", "Key and Value")]
    [InlineData("ModelParams", """{"TensorBufferOverrides":[{"Pattern":"a"}]}""", "'Section:TensorBufferOverrides:0' has no BufferType", "")]
    [InlineData("ModelParams", """{"Encoding":"nonsense"}""", "'Section:Encoding' is 'nonsense'", "no encoding")]
    [InlineData("ModelParams", """{"ContextSize":-1}""", "Section:ContextSize", "-1")]
    [InlineData("InferenceParams", """{"SamplingPipeline":{"TopP":3}}""", "'Section:SamplingPipeline:TopP'", "it must be from 0 to 1")]
    [InlineData("InferenceParams", """{"SamplingPipeline":{"TopPee":1}}""", "'Section:SamplingPipeline:TopPee' is not a known setting", "TopP")]
    [InlineData("InferenceParams", """{"SamplingPipeline":{"Grammar":{"Root":"a"}}}""", "'Section:SamplingPipeline:Grammar' has no Gbnf", "")]
    [InlineData("InferenceParams", """{"SamplingPipeline":{"LogitBias":{"x":1}}}""", "'Section:SamplingPipeline:LogitBias:x'", "token id")]
    [InlineData("InferenceParams", """{"SamplingPipeline":{"LogitBias":{"-3":1}}}""", "'Section:SamplingPipeline:LogitBias:-3'", "token id")]
    [InlineData("InferenceParams", """{"SamplingPipeline":{"DryBreakers":["x"]}}""", "'Section:SamplingPipeline:DryBreakers:0' is 'x'", "token id")]
    public void Nested_errors_name_their_path(string type, string section, string path, string expected)
    {
        Refused(type, "{\"Section\":" + section + "}", path);
        Refused(type, "{\"Section\":" + section + "}", expected);
    }

    [Theory]
    [MemberData(nameof(KvCacheTypeTests.Names), MemberType = typeof(KvCacheTypeTests))]
    public void A_cache_is_bound_by_the_name_of_its_type(string name)
    {
        foreach (string way in Ways)
        {
            Assert.Equal(KvCacheParams.Parse(name), ((ModelParams)Bind(way, "ModelParams", Json(Section("KvCache", $"\"{name}\"")))).KvCache);
            Assert.Equal(KvCacheType.Parse(name), ((ModelParams)Bind(way, "ModelParams", Json(Section("KvCache:TypeK", $"\"{name}\"")))).KvCache.TypeK);
        }

        Assert.Equal(KvCacheParams.Parse(name), JsonSerializer.Deserialize<ModelParams>($$"""{"KvCache":"{{name}}"}""")!.KvCache);
    }

    // Binders that modify the object they find would change shared defaults of the whole program.
    [Fact]
    public void Binding_changes_no_other_parameters()
    {
        foreach (string way in Ways)
        {
            Bind(way, "ModelParams", Json("""{"Section":{"KvCache":{"Group":64,"TypeK":"f16"}}}"""));
            Assert.Equal(new KvCacheParams { Group = 0, TypeK = KvCacheType.Kivi2 }, new ModelParams("x").KvCache);
        }
    }

    [Fact]
    public void Omitted_settings_keep_their_value()
    {
        foreach (string way in Ways)
        {
            string[] types = ["ModelParams", "InferenceParams"];
            foreach (string type in types)
            {
                Assert.Equal(Create(type).ToString(), Bind(way, type, Json("""{"Section":{"Other":{}}}""")).ToString());
            }
        }

        var bound = (InferenceParams)Bind("reflection", "InferenceParams", Json("""{"Section":{"AntiPrompts":"User:","SamplingPipeline":{"TopK":3}}}"""));
        Assert.Equal(["User:"], bound.AntiPrompts);
        Assert.Equal((3, 0.75f), (((DefaultSamplingPipeline)bound.SamplingPipeline).TopK, ((DefaultSamplingPipeline)bound.SamplingPipeline).Temperature));
    }

    // All names are known even with ErrorOnUnknownConfiguration.
    [Fact]
    public void Every_name_is_known_to_a_strict_binder()
    {
        foreach (string type in (string[])["ModelParams", "InferenceParams", "DefaultSamplingPipeline"])
        {
            var section = new JsonObject();
            foreach (string property in Properties.Select(row => row.Data))
            {
                if (property.StartsWith(type + ".", StringComparison.Ordinal))
                {
                    section[property[(type.Length + 1)..]] = JsonNode.Parse(Sample(property).Json);
                }
            }

            IConfiguration configuration = Json(new JsonObject { ["Section"] = section }.ToJsonString());
            IConfigurationSection bound = configuration.GetSection("Section");
            Action<IConfiguration, object?, Action<BinderOptions>?> byReflection = ConfigurationBinder.Bind;
            byReflection(bound, Create(type), options => options.ErrorOnUnknownConfiguration = true);
            switch (Create(type))
            {
                case ModelParams model:
                    bound.Bind(model, options => options.ErrorOnUnknownConfiguration = true);
                    break;
                case InferenceParams inference:
                    bound.Bind(inference, options => options.ErrorOnUnknownConfiguration = true);
                    break;
                case DefaultSamplingPipeline sampling:
                    bound.Bind(sampling, options => options.ErrorOnUnknownConfiguration = true);
                    break;
            }
        }
    }

    [Fact]
    public void Another_pipeline_is_not_bound_in_silence()
    {
        var parameters = new InferenceParams { SamplingPipeline = new GreedySamplingPipeline() };
        Exception e = Assert.ThrowsAny<Exception>(() => Json("""{"Section":{"SamplingPipeline":{"TopK":3}}}""").GetSection("Section").Bind(parameters));
        Assert.Contains("GreedySamplingPipeline", e.GetBaseException().Message, StringComparison.Ordinal);
        Assert.Throws<NotSupportedException>(() => JsonSerializer.Serialize(parameters));
    }

    [Fact]
    public void Null_leaves_a_list_or_an_object_unchanged()
    {
        string[] properties = [.. Properties.Select(row => row.Data).Where(property => Sample(property).Value.GetType() is { IsClass: true } && !property.EndsWith(".Grammar", StringComparison.Ordinal))];
        Assert.Contains("ModelParams.KvCache", properties);
        foreach (string property in properties.Where(property => property is not ("ModelParams.ModelPath" or "DefaultSamplingPipeline.LogitBias")))
        {
            (string type, string name) = (property.Split('.')[0], property.Split('.')[1]);
            object expected = Create(type);
            object read = JsonSerializer.Deserialize($"{{\"{name}\":null}}", expected.GetType())!;
            if (read is InferenceParams { SamplingPipeline: DefaultSamplingPipeline pipeline })
            {
                pipeline.Seed = 1;
            }

            Assert.Equal((name, Written(expected, name)), (name, Written(read, name)));
        }
    }

    [Fact]
    public void A_generated_context_need_not_know_the_pipeline()
    {
        InferenceParams read = JsonSerializer.Deserialize("""{"SamplingPipeline":{"TopK":3,"Grammar":"root ::= \"a\""}}""", InferenceJson.Default.InferenceParams)!;
        var pipeline = (DefaultSamplingPipeline)JsonSerializer.Deserialize(JsonSerializer.Serialize(read, InferenceJson.Default.InferenceParams), InferenceJson.Default.InferenceParams)!.SamplingPipeline;
        Assert.Equal((3, new Grammar("root ::= \"a\"", "root")), (pipeline.TopK, pipeline.Grammar));
    }

    [Fact]
    public void Parameters_without_a_path_say_so_where_they_are_loaded() =>
        Assert.Contains("ModelPath", Assert.Throws<ArgumentException>(() => LLamaWeights.LoadFromFile(new ModelParams())).Message, StringComparison.Ordinal);

    private static void Refused(string type, string document, string expected)
    {
        foreach (string way in Ways)
        {
            Exception e = Assert.ThrowsAny<Exception>(() => Bind(way, type, Json(document)));
            // The reflection binder wraps exceptions of property setters.
            e = e is TargetInvocationException ? e.InnerException! : e;
            Assert.IsType<InvalidOperationException>(e);
            Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        }
    }

    private static string Section(string name, string json) => $"{{\"Section\":{{\"{name}\":{json}}}}}";

    private static object Bind(string way, string type, IConfiguration configuration)
    {
        IConfigurationSection section = configuration.GetSection("Section");
        var services = new ServiceCollection();
        switch (way, Create(type))  // the generator uses the static types of variables
        {
            case ("reflection", var target):
                BindByReflection(section, target);
                return target;
            case ("generator", ModelParams model):
                section.Bind(model);
                return model;
            case ("generator", InferenceParams inference):
                section.Bind(inference);
                return inference;
            case ("generator", DefaultSamplingPipeline sampling):
                section.Bind(sampling);
                return sampling;
            case ("Configure by reflection", ModelParams):
                Func<IServiceCollection, IConfiguration, IServiceCollection> modelOptions = OptionsConfigurationServiceCollectionExtensions.Configure<ModelParams>;
                return Options<ModelParams>(modelOptions(services, section));
            case ("Configure by reflection", InferenceParams):
                Func<IServiceCollection, IConfiguration, IServiceCollection> inferenceOptions = OptionsConfigurationServiceCollectionExtensions.Configure<InferenceParams>;
                return Options<InferenceParams>(inferenceOptions(services, section));
            case ("Configure by reflection", _):
                Func<IServiceCollection, IConfiguration, IServiceCollection> samplingOptions = OptionsConfigurationServiceCollectionExtensions.Configure<DefaultSamplingPipeline>;
                return Options<DefaultSamplingPipeline>(samplingOptions(services, section));
            case (_, ModelParams):
                return Options<ModelParams>(services.Configure<ModelParams>(section));
            case (_, InferenceParams):
                return Options<InferenceParams>(services.Configure<InferenceParams>(section));
            default:
                return Options<DefaultSamplingPipeline>(services.Configure<DefaultSamplingPipeline>(section));
        }
    }

    private static T Options<T>(IServiceCollection services)
        where T : class => services.BuildServiceProvider().GetRequiredService<IOptions<T>>().Value;

    private static IConfiguration Json(string text) => new ConfigurationBuilder().AddJsonStream(new MemoryStream(Encoding.UTF8.GetBytes(text))).Build();

    // The same settings as environment variables, whose names use __ instead of the colon.
    private static IConfiguration FromEnvironment(IConfiguration configuration)
    {
        KeyValuePair<string, string?>[] settings = [.. configuration.AsEnumerable().Where(setting => setting.Value is not null)];
        try
        {
            foreach ((string key, string? value) in settings)
            {
                Environment.SetEnvironmentVariable(EnvironmentPrefix + key.Replace(":", "__", StringComparison.Ordinal), value);
            }

            return new ConfigurationBuilder().AddEnvironmentVariables(EnvironmentPrefix).Build();
        }
        finally
        {
            foreach ((string key, _) in settings)
            {
                Environment.SetEnvironmentVariable(EnvironmentPrefix + key.Replace(":", "__", StringComparison.Ordinal), null);
            }
        }
    }

    private static object Create(string type) => type switch
    {
        "ModelParams" => new ModelParams(),
        "InferenceParams" => new InferenceParams { SamplingPipeline = new DefaultSamplingPipeline { Seed = 1 } },
        _ => new DefaultSamplingPipeline { Seed = 1 },
    };

    private static (string Json, object Value) Sample(string property)
    {
        if (Samples.TryGetValue(property, out (string Json, object Value) sample))
        {
            return sample;
        }

        object owner = Create(property.Split('.')[0]);
        PropertyInfo info = owner.GetType().GetProperty(property.Split('.')[1])!;
        Type type = Nullable.GetUnderlyingType(info.PropertyType) ?? info.PropertyType;
        object? known = info.GetValue(owner);
        object value = type.IsEnum ? Enum.GetValues(type).Cast<object>().LastOrDefault(member => !member.Equals(known)) ?? known!
            : type == typeof(bool) ? !(known as bool? ?? false)
            : type == typeof(string) ? "a text"
            : type == typeof(float) ? 0.25f
            : Convert.ChangeType(7, type, null);
        return (type.IsEnum ? $"\"{value}\"" : JsonSerializer.Serialize(value), value);
    }

    private static string Written(object parameters, string property) =>
        JsonNode.Parse(JsonSerializer.Serialize(parameters, parameters.GetType()))![property]?.ToJsonString() ?? "null";
}

/// <summary>JSON context as in a program compiled ahead of time.</summary>
[JsonSerializable(typeof(ModelParams))]
[JsonSerializable(typeof(InferenceParams))]
[JsonSerializable(typeof(DefaultSamplingPipeline))]
internal sealed partial class ParametersJson : JsonSerializerContext;

/// <summary>Same, without the pipeline.</summary>
[JsonSerializable(typeof(InferenceParams))]
internal sealed partial class InferenceJson : JsonSerializerContext;
