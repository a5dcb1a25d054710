namespace LlamaKivi.Hosting.Tests;

public sealed class PrefillBudgetTests
{
    /// <summary>A step takes a + b * streams + c * prompt tokens; a prompt of 8,000 tokens is read beside the streams.</summary>
    [Theory]
    [InlineData(1, 0.001, 0.003, 0.002)]   // a small model on a CPU
    [InlineData(1, 0.010, 0.0001, 0.00002)]  // a GPU
    [InlineData(16, 0.002, 0.001, 0.001)]
    [InlineData(64, 0.002, 0.0005, 0.01)]  // prompt tokens are dear
    [InlineData(4, 0.0, 0.001, 0.0015)]
    public void A_long_prompt_at_most_doubles_the_steps_of_running_streams(int streams, double a, double b, double c)
    {
        var budget = new PrefillBudget(512);
        double alone = a + (b * streams);
        double worst = 0;
        int steps = 0;
        budget.Record(0, 512, a + (c * 512));  // before the streams ran
        for (int left = 8000; left > 0; steps++)
        {
            int count = Math.Min(left, budget.For(streams, reading: 1));
            double seconds = alone + (c * count);
            budget.Record(streams, count, seconds);
            left -= count;
            worst = Math.Max(worst, seconds);
            Assert.True(steps < 20_000, "The prompt does not advance.");
        }

        Assert.True(worst <= Math.Max(2 * alone, alone + c) * 1.01, $"A step took {worst:G3} s; alone it takes {alone:G3} s.");
    }

    /// <summary>64 requests arrive at once, on a device that reads full batches much faster than small ones: half of them have their first token soon.</summary>
    [Fact]
    public void Most_prompts_of_a_burst_do_not_wait_for_the_few_streams_that_have_begun()
    {
        const int Requests = 64;
        const int Prompt = 160;
        var budget = new PrefillBudget(512);
        double time = 0;
        double half = 0;
        int read = 0;
        for (int left = Requests * Prompt; left > 0;)
        {
            int streams = read / Prompt;
            int count = Math.Min(left, budget.For(streams, Requests - streams));
            double seconds = (streams > 0 ? 0.007 + (0.00005 * streams) : 0) + (count > 0 ? 0.0066 + (0.000034 * count) : 0);
            budget.Record(streams, count, seconds);
            time += seconds;
            left -= count;
            read += count;
            half = half == 0 && read / Prompt >= Requests / 2 ? time : half;
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"half of the prompts are read after {half:F3} s, all after {time:F3} s");
        Assert.InRange(half, 0.1, 0.5);
    }

    /// <summary>Requests that continue a prefix and have one prompt token left, on a device where prompts have a fixed cost: they say little about the time of a token.</summary>
    [Fact]
    public void Steps_with_one_prompt_token_do_not_make_prompt_tokens_expensive()
    {
        const int Prompt = 160;
        const int Requests = 64;
        const int Hits = Requests / 2;
        var budget = new PrefillBudget(512);
        int[] left = [.. Enumerable.Range(0, Requests).Select(request => request < Hits ? 1 : Prompt)];
        int steps = 0;

        // Two requests arrive per step.
        for (int arrived = 2; left.Any(tokens => tokens > 0); arrived = Math.Min(Requests, arrived + 2))
        {
            Span<int> reading = left.AsSpan(0, arrived);
            int streams = reading.Count(0);
            int rest = budget.For(streams, arrived - streams);
            int count = 0;
            foreach (ref int tokens in reading)
            {
                int taken = Math.Min(tokens, rest);
                (tokens, rest, count) = (tokens - taken, rest - taken, count + taken);
            }

            budget.Record(streams, count, (streams > 0 ? 0.007 + (0.00005 * streams) : 0.0066) + (count > 0 ? (streams > 0 ? 0.0066 : 0) + (0.000034 * count) : 0));
            Assert.True(++steps < 2000, "The prompts do not advance.");
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{steps} steps; 416 tokens are expected to take {1000 * budget.DecodeSeconds(416):F1} ms");
        Assert.InRange(steps, 32, 120);
        Assert.InRange(budget.DecodeSeconds(416), 0.010, 0.030);
    }

    /// <summary>
    /// Two loads of 64 requests with 160 prompt tokens and 256 to generate, of which half continue a prefix in the second, on a device where prompts have a fixed cost. Without the prompts a load takes
    /// 256 steps.
    /// </summary>
    [Theory]
    [InlineData(0.003)]
    [InlineData(0.0066)]
    [InlineData(0.012)]  // more than a step without prompts
    public void Loads_take_few_steps_whatever_the_fixed_cost_of_prompts(double fixedSeconds)
    {
        const int Requests = 64;
        var budget = new PrefillBudget(512);
        for (int load = 1; load <= 2; load++)
        {
            int[] prompt = [.. Enumerable.Range(0, Requests).Select(request => load == 2 && request < Requests / 2 ? 1 : 160)];
            int[] generate = [.. Enumerable.Repeat(256, Requests)];
            int steps = 0;

            // Eight requests arrive per step.
            for (int arrived = 8; generate.Any(tokens => tokens > 0); arrived = Math.Min(Requests, arrived + 8))
            {
                int[] streams = [.. Enumerable.Range(0, arrived).Where(request => prompt[request] == 0 && generate[request] > 0)];
                int reading = arrived - prompt.AsSpan(0, arrived).Count(0);
                int rest = reading > 0 ? budget.For(streams.Length, reading) : 0;
                int count = 0;
                foreach (ref int tokens in prompt.AsSpan(0, arrived))
                {
                    int taken = Math.Min(tokens, rest);
                    (tokens, rest, count) = (tokens - taken, rest - taken, count + taken);
                }

                Array.ForEach(streams, request => generate[request]--);
                double decode = streams.Length > 0 ? 0.0075 + (0.00003 * streams.Length) : 0;
                double prompts = count > 0 ? (streams.Length > 0 ? fixedSeconds : 0.0066) + (0.000034 * count) : 0;
                budget.Record(streams.Length, count, decode + prompts);
                Assert.True(++steps < 3000, "The prompts do not advance.");
            }

            TestContext.Current.TestOutputHelper?.WriteLine($"fixed cost {1000 * fixedSeconds} ms, load {load}: {steps} steps; 415 tokens are expected to take {1000 * budget.DecodeSeconds(415):F1} ms");
            Assert.InRange(steps, 256, 350);
            Assert.InRange(budget.DecodeSeconds(415), 0.010, 0.020);
        }
    }

    [Fact]
    public void The_budget_follows_the_number_of_streams()
    {
        var budget = new PrefillBudget(512);
        double Step(int streams)
        {
            int count = budget.For(streams, reading: 1);
            double seconds = (0.001 * streams) + (0.001 * count);
            budget.Record(streams, count, seconds);
            return seconds;
        }

        for (int i = 0; i < 10; i++)
        {
            Step(32);
        }

        // The streams leave but one: its steps are not measured by those of 32.
        for (int i = 0; i < 10; i++)
        {
            Assert.InRange(Step(1), 0.001, 0.0021);
        }
    }

    [Fact]
    public async Task Streams_go_on_while_a_long_prompt_is_read()
    {
        const int Warm = 30;   // steps of the stream alone, so that one slow step says little about the time of the next
        const int Most = 512;  // tokens of a batch
        using var watch = new StepWatch();
        InferenceEngineOptions options = Engines.Options(contextSize: 8192, sequences: 4) with { BatchSize = Most, PrefixCache = new PrefixCacheOptions { Enabled = false } };
        using InferenceEngine engine = await watch.StartAsync(options);
        using var stop = new CancellationTokenSource();
        await using IAsyncEnumerator<string> stream = engine.InferAsync("Once upon a time", Engines.Endless(), stop.Token).GetAsyncEnumerator();
        for (int piece = 0; piece < Warm; piece++)
        {
            Assert.True(await stream.MoveNextAsync());
        }

        InferenceStream prompt = engine.InferAsync(string.Concat(Enumerable.Repeat("one two three four five ", 240)), Engines.Greedy(1));
        await prompt.TextAsync();
        int tokens = prompt.Timings.PromptTokens;
        int[] beside = [.. watch.Steps.Where(step => step.Status.Running == 2).Select(step => step.Tokens)];
        TestContext.Current.TestOutputHelper?.WriteLine($"{tokens} prompt tokens in {beside.Length} steps of {beside.Min()} to {beside.Max()} tokens");
        Assert.Equal(tokens + beside.Length, beside.Sum());  // a token of the stream in each step
        Assert.True(beside.Length > 2 * ((tokens / Most) + 1), $"{tokens} prompt tokens were read in {beside.Length} steps, as if there were no stream.");
    }
}
