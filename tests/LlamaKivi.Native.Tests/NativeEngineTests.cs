using LlamaKivi.Common;
using Xunit;

namespace LlamaKivi.Native.Tests;

public class NativeEngineTests
{
    [Fact]
    public void The_library_has_the_interface_version_of_the_bindings() =>
        Assert.Equal((int)NativeMethods.LK_ABI_VERSION, NativeEngine.AbiVersion);

    [Fact]
    public void The_engine_describes_itself()
    {
        Assert.Matches(@"^\d+\.\d+\.\d+$", NativeEngine.Version);
        Assert.NotEmpty(NativeEngine.CpuDescription);
    }

    [Fact]
    public void Cache_types_have_the_engine_s_names()
    {
        Assert.Equal(["f16", "kivi4", "kivi2", "kivi4-paper", "kivi2-paper", "q8_0", "q4_0", "f32", "bf16", "q5_1", "q5_0", "q4_1", "iq4_nl", "kivi3"], KvCacheType.Names);
        Assert.Equal(KvCacheType.Names, Enumerable.Range(0, (int)lk_cache_type.LK_CACHE_TYPE_COUNT).Select(type => NativeEngine.CacheTypeName((lk_cache_type)type)));
        Assert.Null(NativeEngine.CacheTypeName(lk_cache_type.LK_CACHE_TYPE_COUNT));
        Assert.Equal(
            [lk_cache_type.LK_CACHE_F16, lk_cache_type.LK_CACHE_KIVI4, lk_cache_type.LK_CACHE_KIVI2, lk_cache_type.LK_CACHE_KIVI4_PAPER, lk_cache_type.LK_CACHE_KIVI2_PAPER,
                lk_cache_type.LK_CACHE_Q8_0, lk_cache_type.LK_CACHE_Q4_0, lk_cache_type.LK_CACHE_F32, lk_cache_type.LK_CACHE_BF16, lk_cache_type.LK_CACHE_Q5_1,
                lk_cache_type.LK_CACHE_Q5_0, lk_cache_type.LK_CACHE_Q4_1, lk_cache_type.LK_CACHE_IQ4_NL, lk_cache_type.LK_CACHE_KIVI3],
            new[]
            {
                KvCacheType.F16, KvCacheType.Kivi4, KvCacheType.Kivi2, KvCacheType.Kivi4Paper, KvCacheType.Kivi2Paper, KvCacheType.Q8_0, KvCacheType.Q4_0, KvCacheType.F32,
                KvCacheType.BF16, KvCacheType.Q5_1, KvCacheType.Q5_0, KvCacheType.Q4_1, KvCacheType.IQ4_NL, KvCacheType.Kivi3,
            }.Select(type => type.ToNative()));
    }

    // The public enumerations have the engine's numbers, so that a cast converts them.
    [Theory]
    [InlineData(typeof(lk_status), typeof(EngineStatus), "LK_")]
    [InlineData(typeof(lk_log_level), typeof(EngineLogLevel), "LK_LOG_")]
    [InlineData(typeof(lk_value_type), typeof(GgufValueType), "LK_VALUE_")]
    public void Public_enumerations_are_the_engine_s(Type native, Type managed, string prefix)
    {
        static string Plain(string name) => name.Replace("_", "", StringComparison.Ordinal).ToUpperInvariant();
        string[] expected = [.. Enum.GetNames(native).Select(name => Plain(name[prefix.Length..]) is "INFO" ? "INFORMATION" : Plain(name[prefix.Length..]))];
        Assert.Equal(expected, Enum.GetNames(managed).Select(Plain));
        Assert.Equal(Enum.GetValuesAsUnderlyingType(native).Cast<object>().Select(Convert.ToInt32), Enum.GetValuesAsUnderlyingType(managed).Cast<object>().Select(Convert.ToInt32));
    }

    [Fact]
    public void The_public_surface_has_no_name_of_the_C_interface()
    {
        Type[] types = typeof(NativeEngine).Assembly.GetExportedTypes();
        Assert.DoesNotContain(types, type => type.Name.StartsWith("lk_", StringComparison.Ordinal));
        Assert.DoesNotContain(types.SelectMany(type => type.GetMembers()), member => member.Name.StartsWith("lk_", StringComparison.OrdinalIgnoreCase));
    }

    [Fact]
    public void Every_status_has_its_name()
    {
        foreach (lk_status status in Enum.GetValues<lk_status>())
        {
            Assert.Equal(status.ToString(), NativeEngine.StatusName(status));
        }
    }
}
