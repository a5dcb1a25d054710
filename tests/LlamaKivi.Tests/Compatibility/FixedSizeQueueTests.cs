using LlamaKivi.Common;

namespace LlamaKivi.Tests.Common;

public class FixedSizeQueueTests
{
    [Fact]
    public void The_oldest_item_goes_for_a_new_one()
    {
        var queue = new FixedSizeQueue<int>(3, [1, 2]);
        queue.Enqueue(3);
        queue.Enqueue(4);
        Assert.Equal([2, 3, 4], queue);
        Assert.Equal((3, 3, 2), (queue.Count, queue.Capacity, queue[0]));
        Assert.Throws<ArgumentOutOfRangeException>(() => queue[3]);
    }

    [Fact]
    public void A_queue_holds_something_and_all_that_it_is_given()
    {
        Assert.Equal([1, 2], new FixedSizeQueue<int>(2, [1, 2]));
        Assert.Throws<ArgumentOutOfRangeException>(() => new FixedSizeQueue<int>(0));
        Assert.Throws<ArgumentOutOfRangeException>(() => new FixedSizeQueue<int>(-1, [1]));
        Assert.Throws<ArgumentException>(() => new FixedSizeQueue<int>(2, [1, 2, 3]));
    }
}
