using Xunit;

namespace LlamaKivi.Native.Tests;

public class NativeStatusTests
{
    [Theory]
    [InlineData(lk_status.LK_INVALID_ARGUMENT, typeof(ArgumentException))]
    [InlineData(lk_status.LK_IO_ERROR, typeof(ModelLoadException))]
    [InlineData(lk_status.LK_BAD_FILE, typeof(ModelLoadException))]
    [InlineData(lk_status.LK_UNSUPPORTED, typeof(UnsupportedModelException))]
    [InlineData(lk_status.LK_OUT_OF_MEMORY, typeof(NativeOutOfMemoryException))]
    [InlineData(lk_status.LK_CACHE_FULL, typeof(KvCacheFullException))]
    [InlineData(lk_status.LK_CANCELLED, typeof(OperationCanceledException))]
    [InlineData(lk_status.LK_NUMERIC_ERROR, typeof(NumericErrorException))]
    [InlineData(lk_status.LK_BUSY, typeof(ContextBusyException))]
    [InlineData(lk_status.LK_INTERNAL_ERROR, typeof(LlamaKiviException))]
    [InlineData((lk_status)999, typeof(LlamaKiviException))]
    public void Every_status_has_its_exception_with_the_message(lk_status status, Type expected)
    {
        Exception e = NativeStatus.ToException(status, "what went wrong");
        Assert.Equal(expected, e.GetType());
        Assert.Equal("what went wrong", e.Message);
        if (e is LlamaKiviException engine)
        {
            Assert.Equal(status, engine.Status);
        }
    }

    [Fact]
    public void No_status_is_left_to_the_default()
    {
        lk_status[] general = [.. Enum.GetValues<lk_status>()
            .Where(status => NativeStatus.ToException(status, "").GetType() == typeof(LlamaKiviException))];
        Assert.Equal([lk_status.LK_OK, lk_status.LK_INTERNAL_ERROR], general);
    }

    [Fact]
    public void Ok_does_not_throw() => NativeStatus.Check(lk_status.LK_OK);
}
