namespace LlamaKivi.Tests;

public class StepLoopTests
{
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(30);

    [Fact]
    public Task Steps_follow_one_another() => OnThePool(async () =>
    {
        int steps = 0;
        using var loop = new StepLoop<int>(() => ++steps);
        for (int i = 1; i <= 10_000; i++)
        {
            Assert.Equal(i, await loop.RunAsync());
        }
    });

    [Fact]
    public Task The_next_step_begins_after_its_caller_has_returned() => OnThePool(async () =>
    {
        int caller = 0;  // the thread of the caller until it has returned
        bool isNested = false;
        using var loop = new StepLoop<int>(() =>
        {
            isNested |= Volatile.Read(ref caller) == Environment.CurrentManagedThreadId;
            return Environment.CurrentManagedThreadId;
        });
        int returned = 0;
        for (int thread = await loop.RunAsync(); returned < 20; thread = await Step())
        {
            returned += thread == Environment.CurrentManagedThreadId ? 1 : 0;
        }

        Assert.False(isNested);

        ValueTask<int> Step()
        {
            Volatile.Write(ref caller, Environment.CurrentManagedThreadId);
            ValueTask<int> next = loop.RunAsync();
            Volatile.Write(ref caller, 0);
            return next;
        }
    });

    [Fact]
    public Task A_caller_that_waits_where_a_step_ended_gets_the_next_one() => OnThePool(async () =>
    {
        int steps = 0;
        using var loop = new StepLoop<int>(() => ++steps);
        await loop.RunAsync();
        for (int i = 2; i < 20; i++)
        {
#pragma warning disable xUnit1031 // blocking is what this test is about
            Task<int> next = loop.RunAsync().AsTask();
            Assert.True(next.Wait(Long));
            Assert.Equal(i, next.Result);
#pragma warning restore xUnit1031
        }
    });

    [Fact]
    public Task A_caller_that_does_something_else_first_has_the_step_meanwhile() => OnThePool(async () =>
    {
        using var begun = new ManualResetEventSlim();
        int steps = 0;
        using var loop = new StepLoop<int>(() =>
        {
            if (++steps == 2)
            {
                begun.Set();
            }

            return steps;
        });
        await loop.RunAsync();
        ValueTask<int> next = loop.RunAsync();
        Assert.True(begun.Wait(Long));
        Assert.Equal(2, await next);
    });

    [Fact]
    public Task What_a_step_throws_reaches_its_caller_and_the_loop_goes_on() => OnThePool(async () =>
    {
        int steps = 0;
        using var loop = new StepLoop<int>(() => ++steps == 2 ? throw new FormatException("two") : steps);
        Assert.Equal(1, await loop.RunAsync());
        Assert.Equal("two", (await Assert.ThrowsAsync<FormatException>(async () => await loop.RunAsync())).Message);
        Assert.Equal(3, await loop.RunAsync());
    });

    [Fact]
    public Task Steps_see_the_values_of_their_caller() => OnThePool(async () =>
    {
        var local = new AsyncLocal<int>();
        using var loop = new StepLoop<int>(() => local.Value);
        for (int i = 0; i < 10; i++)
        {
            local.Value = i;
            Assert.Equal(i, await loop.RunAsync());
        }
    });

    [Fact]
    public Task Loops_of_one_caller_run_side_by_side() => OnThePool(async () =>
    {
        using var both = new Barrier(2);
        bool Meet() => both.SignalAndWait(Long);
        using var first = new StepLoop<bool>(Meet);
        using var second = new StepLoop<bool>(Meet);
        for (int i = 0; i < 20; i++)
        {
            Task<bool> one = first.RunAsync().AsTask();
            Task<bool> other = second.RunAsync().AsTask();
            Assert.True(await one && await other);
        }
    });

    [Fact]
    public Task Other_work_of_the_pool_gets_its_turn() => OnThePool(async () =>
    {
        using var loop = new StepLoop<bool>(() =>
        {
            Thread.Sleep(1);
            return true;
        });
        var done = new CountdownEvent(100);
        for (int i = 0; i < 100; i++)
        {
            ThreadPool.UnsafeQueueUserWorkItem(_ => done.Signal(), null);
        }

        for (int i = 0; i < 1_000 && !done.IsSet; i++)
        {
            await loop.RunAsync();
        }

        Assert.True(done.IsSet);
    });

    // Without a synchronization context, so that continuations stay on the thread.
    private static Task OnThePool(Func<Task> body) => Task.Run(body);
}
