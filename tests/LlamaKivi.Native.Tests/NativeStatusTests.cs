using Xunit;

namespace LlamaKivi.Native.Tests;

public class NativeStatusTests
{
    [Theory]
    [InlineData(EngineStatus.InvalidArgument, typeof(ArgumentException))]
    [InlineData(EngineStatus.IoError, typeof(ModelLoadException))]
    [InlineData(EngineStatus.BadFile, typeof(ModelLoadException))]
    [InlineData(EngineStatus.Unsupported, typeof(UnsupportedModelException))]
    [InlineData(EngineStatus.OutOfMemory, typeof(NativeOutOfMemoryException))]
    [InlineData(EngineStatus.CacheFull, typeof(KvCacheFullException))]
    [InlineData(EngineStatus.Cancelled, typeof(OperationCanceledException))]
    [InlineData(EngineStatus.NumericError, typeof(NumericErrorException))]
    [InlineData(EngineStatus.Busy, typeof(ContextBusyException))]
    [InlineData(EngineStatus.InternalError, typeof(LlamaKiviException))]
    [InlineData((EngineStatus)999, typeof(LlamaKiviException))]
    public void Every_status_has_its_exception_with_the_message(EngineStatus status, Type expected)
    {
        Exception e = NativeStatus.ToException((lk_status)status, "what went wrong");
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
