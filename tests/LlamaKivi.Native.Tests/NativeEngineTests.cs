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

    [Theory]
    [InlineData(lk_cache_type.LK_CACHE_F16, "f16")]
    [InlineData(lk_cache_type.LK_CACHE_KIVI2, "kivi2")]
    [InlineData(lk_cache_type.LK_CACHE_KIVI2_PAPER, "kivi2-paper")]
    [InlineData(lk_cache_type.LK_CACHE_TYPE_COUNT, null)]
    public void Cache_types_have_names(lk_cache_type type, string? name) => Assert.Equal(name, NativeEngine.CacheTypeName(type));

    [Fact]
    public void Every_status_has_its_name()
    {
        foreach (lk_status status in Enum.GetValues<lk_status>())
        {
            Assert.Equal(status.ToString(), NativeEngine.StatusName(status));
        }
    }
}
