using LlamaKivi.Native;

namespace LlamaKivi.Tests.Sampling;

public class NativeValueTests
{
    [Fact]
    public void A_batch_keeps_what_is_added()
    {
        var batch = new LLamaBatch();
        Assert.Equal(1, batch.AddRange([7, 8], 3, LLamaSeqId.Zero, logitsLast: true));
        Assert.Equal(2, batch.Add(9, 0, (LLamaSeqId)1, logits: false));
        Assert.Equal(3, batch.Add(10, 1, (LLamaSeqId[])[(LLamaSeqId)1], logits: true));
        Assert.Equal(4, batch.TokenCount);
        Assert.Equal([7, 8, 9, 10], batch.Tokens.ToArray());
        Assert.Equal([3, 4, 0, 1], batch.Positions.ToArray());
        Assert.Equal([0, 0, 1, 1], batch.SequenceIds.ToArray());
        Assert.Equal([0, 1, 0, 1], batch.Outputs.ToArray());
        batch.Clear();
        Assert.Equal(0, batch.TokenCount);
        Assert.Equal(-1, batch.AddRange([], 0, LLamaSeqId.Zero, logitsLast: true));
    }

    [Fact]
    public void A_batch_grows()
    {
        var batch = new LLamaBatch();
        LLamaToken[] tokens = [.. Enumerable.Range(0, 1000).Select(i => (LLamaToken)i)];
        Assert.Equal(999, batch.AddRange(tokens, 0, LLamaSeqId.Zero, logitsLast: false));
        Assert.Equal(Enumerable.Range(0, 1000), batch.Positions.ToArray());
        Assert.Equal(0, batch.Outputs.IndexOfAnyExcept((byte)0) + 1);
    }

    [Fact]
    public void Sequences_share_all_their_tokens_of_a_batch_or_none()
    {
        static List<LLamaSeqId> Sequences(params int[] ids) => [.. ids.Select(id => (LLamaSeqId)id)];
        var batch = new LLamaBatch();
        Assert.Throws<ArgumentException>(() => batch.Add(1, 0, Sequences(), true));
        batch.Add(1, 0, Sequences(0, 1, 2), false);
        batch.Add(2, 1, Sequences(0, 1, 2), true);
        batch.Add(3, 0, (LLamaSeqId)5, true);
        Assert.Equal((3, 3), (batch.TokenCount, batch.SequenceCapacity));
        Assert.Throws<NotSupportedException>(() => batch.Add(3, 2, (LLamaSeqId)0, true));
        Assert.Throws<NotSupportedException>(() => batch.Add(3, 2, (LLamaSeqId)2, true));
        Assert.Throws<NotSupportedException>(() => batch.Add(3, 2, Sequences(0, 1), true));
        Assert.Throws<NotSupportedException>(() => batch.Add(3, 0, Sequences(6, 1), true));
        Assert.Throws<NotSupportedException>(() => batch.Add(3, 0, Sequences(6, 5), true));
        Assert.Equal(3, batch.TokenCount);
        batch.Clear();
        batch.Add(3, 2, (LLamaSeqId)2, true);
    }

    [Fact]
    public void Softmax_sorts_and_gives_probabilities()
    {
        LLamaTokenDataArray data = LLamaTokenDataArray.Create([0f, 0f, 0f]);
        data.OverwriteLogits([(2, MathF.Log(2)), (9, 1f)]);
        data.Softmax();
        Assert.True(data.Sorted);
        LLamaTokenData[] entries = data.Data.ToArray();
        Assert.Equal([2, 0, 1], entries.Select(entry => (int)entry.ID));
        Assert.Equal(0.5f, entries[0].Probability, 1e-6f);
        Assert.Equal(0.25f, entries[2].Probability, 1e-6f);
        Assert.Throws<ArgumentException>(() => LLamaTokenDataArray.Create([1f], Memory<LLamaTokenData>.Empty));
    }

    [Fact]
    public void Positions_count_up_and_down()
    {
        LLamaPos position = 4;
        position++;
        Assert.Equal(5, (int)position);
        position--;
        Assert.Equal(4, position.Value);
        Assert.Equal("-1", LLamaToken.InvalidToken.ToString());
    }
}
