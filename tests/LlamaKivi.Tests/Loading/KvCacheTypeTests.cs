using System.ComponentModel;
using System.Text.Json;
using LlamaKivi.Common;

namespace LlamaKivi.Tests.Common;

/// <summary>Names of the KV cache types.</summary>
public class KvCacheTypeTests
{
    public static TheoryData<string> Names => [.. KvCacheType.Names];

    private static readonly Dictionary<string, KvCacheType> ByName = new()
    {
        ["f16"] = KvCacheType.F16,
        ["q8_0"] = KvCacheType.Q8_0,
        ["q4_0"] = KvCacheType.Q4_0,
        ["kivi4"] = KvCacheType.Kivi4,
        ["kivi2"] = KvCacheType.Kivi2,
        ["kivi4-paper"] = KvCacheType.Kivi4Paper,
        ["kivi2-paper"] = KvCacheType.Kivi2Paper,
        ["kivi3"] = KvCacheType.Kivi3,
        ["f32"] = KvCacheType.F32,
        ["bf16"] = KvCacheType.BF16,
        ["q5_1"] = KvCacheType.Q5_1,
        ["q5_0"] = KvCacheType.Q5_0,
        ["q4_1"] = KvCacheType.Q4_1,
        ["iq4_nl"] = KvCacheType.IQ4_NL,
    };

    [Fact]
    public void An_unknown_setting_in_JSON_is_refused()
    {
        JsonException error = Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<ModelParams>("""{"KvCache":{"TypeK":"kivi4","Typv":"q8_0"}}"""));
        Assert.Contains("'Typv' is not a known setting of a KV cache; the settings are TypeK,", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Each_property_is_a_type_of_its_own()
    {
        Assert.Equal(ByName.Keys.Order(), KvCacheType.Names.Order());
        Assert.Equal(ByName.Values.ToHashSet(), KvCacheType.All.ToHashSet());
        Assert.Equal(14, KvCacheType.All.Distinct().Count());
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_name_is_read_in_any_case_and_printed_as_users_type_it(string name)
    {
        KvCacheType type = ByName[name];
        Assert.Equal(name, type.ToString());
        Assert.Equal(type, KvCacheType.Parse(name));
        Assert.Equal(type, KvCacheType.Parse(name.ToUpperInvariant()));
        Assert.Equal(type, KvCacheType.Parse($" {name} "));
        Assert.Equal(type, KvCacheType.Parse("LK_CACHE_" + name.ToUpperInvariant().Replace('-', '_')));  // as written to JSON by earlier versions
        Assert.True(KvCacheType.TryParse(name, out KvCacheType parsed) && parsed == type && parsed.Equals((object)type) && !(parsed != type));
        Assert.Equal(type, Read<KvCacheType>(name));
        Assert.Equal(type, TypeDescriptor.GetConverter(typeof(KvCacheType)).ConvertFromInvariantString(name));
        Assert.Equal(name, TypeDescriptor.GetConverter(typeof(KvCacheType)).ConvertToInvariantString(type));
        Assert.Equal($"\"{name}\"", JsonSerializer.Serialize(type));
        Assert.Equal(type, JsonSerializer.Deserialize<KvCacheType>($"\"{name}\""));

        static T Read<T>(string text)
            where T : IParsable<T> => T.Parse(text, null);
    }

    [Fact]
    public void The_properties_names_are_read()
    {
        Assert.Equal(KvCacheType.Kivi2Paper, KvCacheType.Parse("Kivi2Paper"));
        Assert.Equal(KvCacheType.Q8_0, KvCacheType.Parse("Q8_0"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("kivi9")]
    [InlineData("q80")]
    [InlineData("2")]
    public void A_wrong_name_is_answered_with_the_names_there_are(string name)
    {
        Assert.False(KvCacheType.TryParse(name, out _));
        Assert.False(KvCacheType.TryParse(null, out _));
        string[] messages =
        [
            Assert.Throws<ArgumentException>(() => KvCacheType.Parse(name)).Message,
            Assert.Throws<ArgumentException>(() => TypeDescriptor.GetConverter(typeof(KvCacheType)).ConvertFromInvariantString(name)).Message,
            Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<KvCacheType>($"\"{name}\"")).Message,
        ];
        Assert.All(messages, message =>
        {
            Assert.Contains($"'{name}'", message, StringComparison.Ordinal);
            Assert.All(KvCacheType.Names, valid => Assert.Contains(valid, message, StringComparison.Ordinal));
        });
        Assert.Throws<JsonException>(() => JsonSerializer.Deserialize<KvCacheType>("2"));
    }
}
