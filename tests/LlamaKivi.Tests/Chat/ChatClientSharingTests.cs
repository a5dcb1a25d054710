using System.Diagnostics;
using LlamaKivi.Abstractions;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Several clients of one executor: decorated, registered as services, cancelled and abandoned.</summary>
public sealed class ChatClientSharingTests(ToolModels models) : IClassFixture<ToolModels>
{
    [Fact]
    public async Task Concurrent_calls_of_two_clients_keep_their_own_options()
    {
        using LLamaContext context = models.Marked("<tool_call>").CreateContext(ToolModels.Params());
        var executor = new InteractiveExecutor(context);
        var spans = new List<string>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name.Contains("Extensions.AI", StringComparison.Ordinal),
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = activity =>
            {
                lock (spans)
                {
                    spans.Add(activity.OperationName);
                }
            },
        };
        ActivitySource.AddActivityListener(listener);

        var services = new ServiceCollection();
        services.AddLogging(logging => logging.SetMinimumLevel(LogLevel.Trace));
        services.AddDistributedMemoryCache();
        services.AddSingleton<ILLamaExecutor>(executor);
        Decorate(services.AddChatClient(Create, ServiceLifetime.Transient));
        Decorate(services.AddKeyedChatClient("keyed", Create));
        await using (ServiceProvider provider = services.BuildServiceProvider())
        {
            IChatClient keyed = provider.GetRequiredKeyedService<IChatClient>("keyed");
            Assert.NotSame(provider.GetRequiredService<IChatClient>(), provider.GetRequiredService<IChatClient>());
            Assert.Same(executor, keyed.GetService<InteractiveExecutor>());
            string[] ends = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => Task.Run(() => CallAsync(i % 2 == 0 ? keyed : provider.GetRequiredService<IChatClient>(), i))));
            Assert.Equal(Enumerable.Range(0, 20).Select(i => i % 3 == 0 ? "cancelled" : i % 3 == 1 ? "abandoned" : "complete"), ends);

            ChatResponse first = await keyed.GetResponseAsync("The same?", Greedy(), TestContext.Current.CancellationToken);
            int spansBefore = spans.Count;
            ChatResponse second = await provider.GetRequiredService<IChatClient>().GetResponseAsync("The same?", Greedy(), TestContext.Current.CancellationToken);
            Assert.Equal(first.Text, second.Text);
            Assert.Equal(spansBefore, spans.Count);  // from the cache of responses: the model was not called
        }

        Assert.NotEmpty(spans);
        using IChatClient after = executor.AsChatClient();
        Assert.NotEqual("", (await after.GetResponseAsync("Still there?", Greedy(), TestContext.Current.CancellationToken)).Text);

        static IChatClient Create(IServiceProvider provider) => provider.GetRequiredService<ILLamaExecutor>().AsChatClient();

        static void Decorate(ChatClientBuilder builder) => builder.UseDistributedCache().UseFunctionInvocation().UseOpenTelemetry().UseLogging();
    }

    private static ChatOptions Greedy() =>
        new() { Temperature = 0, MaxOutputTokens = 8, Tools = [AIFunctionFactory.Create(() => "noon", "now")] };

    private static async Task<string> CallAsync(IChatClient client, int i)
    {
        using var source = new CancellationTokenSource();
        if (i % 6 == 3)
        {
            source.CancelAfter(i);  // while it waits for its turn
        }

        int updates = 0;
        try
        {
            await foreach (ChatResponseUpdate update in client.GetStreamingResponseAsync($"Question {i}: what is a lexer?", Greedy(), source.Token))
            {
                updates++;
                if (i % 3 == 0)
                {
                    await source.CancelAsync();
                }
                else if (i % 3 == 1)
                {
                    return "abandoned";
                }
            }
        }
        catch (OperationCanceledException) when (source.IsCancellationRequested)
        {
            return "cancelled";
        }

        return updates > 2 ? "complete" : $"{updates} updates";
    }
}
