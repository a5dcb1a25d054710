using System.Reflection;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Each member of ChatOptions takes effect or is rejected.</summary>
public sealed class ChatOptionsTests(ToolModels models) : IClassFixture<ToolModels>
{
    private static readonly AIFunction Now = AIFunctionFactory.Create(() => "noon", "now");

    public static TheoryData<string, ChatOptions> Refused => new()
    {
        { "AdditionalProperties['min_p']", new() { AdditionalProperties = new() { ["min_p"] = 0.1 } } },
        { "AdditionalProperties['messages']", new() { AdditionalProperties = new() { ["messages"] = 5 } } },
        { nameof(ChatOptions.AllowBackgroundResponses), new() { AllowBackgroundResponses = true } },
        { nameof(ChatOptions.ContinuationToken), new() { ContinuationToken = ResponseContinuationToken.FromBytes(new byte[] { 1 }) } },
        { nameof(ChatOptions.ConversationId), new() { ConversationId = "7" } },
        { nameof(ChatOptions.FrequencyPenalty), new() { FrequencyPenalty = 2.5f } },
        { nameof(ChatOptions.MaxOutputTokens), new() { MaxOutputTokens = -1 } },
        { nameof(ChatOptions.ModelId), new() { ModelId = "another-model" } },
        { nameof(ChatOptions.PresencePenalty), new() { PresencePenalty = float.NaN } },
        { nameof(ChatOptions.RawRepresentationFactory), new() { RawRepresentationFactory = _ => new InferenceParams() } },
        { "Reasoning.Output", new() { Reasoning = new() { Output = ReasoningOutput.Summary } } },
        { nameof(ChatOptions.Seed), new() { Seed = 1L << 32 } },
        { nameof(ChatOptions.Seed), new() { Seed = -1 } },
        { nameof(ChatOptions.Temperature), new() { Temperature = -0.5f } },
        { nameof(ChatOptions.Tools), new() { Tools = [new HostedWebSearchTool()] } },
        { nameof(ChatOptions.TopK), new() { TopK = -1 } },
        { nameof(ChatOptions.TopP), new() { TopP = 1.5f } },
    };

    public static TheoryData<string, ChatOptions, string> Heeded => new()
    {
        { nameof(ChatOptions.AdditionalProperties), new() { AdditionalProperties = new() { ["enable_thinking"] = "maybe" } }, "prompt:<assistant>maybe" },
        { nameof(ChatOptions.AllowBackgroundResponses), new() { AllowBackgroundResponses = false }, "text:" },
        { nameof(ChatOptions.AllowMultipleToolCalls), new() { Tools = [Now], AllowMultipleToolCalls = false }, "calls:1" },
        { nameof(ChatOptions.AllowMultipleToolCalls), new() { Tools = [Now], AllowMultipleToolCalls = true }, "calls:2" },
        { nameof(ChatOptions.FrequencyPenalty), new() { FrequencyPenalty = 0.5f }, "FrequencyPenalty:0.5" },
        { nameof(ChatOptions.Instructions), new() { Instructions = "Be brief." }, "prompt:<system>Be brief.\n<user>" },
        { nameof(ChatOptions.MaxOutputTokens), new() { MaxOutputTokens = 7 }, "MaxTokens:7" },
        { nameof(ChatOptions.ModelId), new() { ModelId = "kivi-demo-llama-37m-q4_k_m" }, "text:" },
        { nameof(ChatOptions.PresencePenalty), new() { PresencePenalty = 0.5f }, "PresencePenalty:0.5" },
        { nameof(ChatOptions.RawRepresentationFactory), new() { RawRepresentationFactory = _ => null }, "text:" },
        { nameof(ChatOptions.Reasoning), new() { Reasoning = new() { Effort = ReasoningEffort.None } }, "prompt:<assistant>False" },
        { nameof(ChatOptions.Reasoning), new() { Reasoning = new() { Effort = ReasoningEffort.High } }, "prompt:<assistant>True" },
        { nameof(ChatOptions.Reasoning), new() { Reasoning = new() { Output = ReasoningOutput.None } }, "thoughts:" },
        { nameof(ChatOptions.ResponseFormat), new() { ResponseFormat = ChatResponseFormat.Text }, "thoughts:Hm" },
        { nameof(ChatOptions.Seed), new() { Seed = uint.MaxValue }, "Seed:4294967295" },
        { nameof(ChatOptions.StopSequences), new() { StopSequences = ["<tool"] }, "calls:0" },
        { nameof(ChatOptions.Temperature), new() { Temperature = 0 }, "Temperature:0" },
        { nameof(ChatOptions.ToolMode), new() { Tools = [Now], ToolMode = ChatToolMode.None }, "calls:0" },
        { nameof(ChatOptions.Tools), new() { Tools = [Now] }, "prompt:\"name\": \"now\"" },
        { nameof(ChatOptions.TopK), new() { TopK = 3 }, "TopK:3" },
        { nameof(ChatOptions.TopP), new() { TopP = 0.5f }, "TopP:0.5" },
    };

    [Fact]
    public void Each_member_has_a_case()
    {
        string[] members = [.. typeof(ChatOptions).GetProperties(BindingFlags.Public | BindingFlags.Instance).Select(property => property.Name).Order(StringComparer.Ordinal)];
        string[] tried = [.. Refused.Select(row => row.Data.Item1).Concat(Heeded.Select(row => row.Data.Item1)).Select(name => name.Split('.', '[')[0]).Distinct().Order(StringComparer.Ordinal)];
        Assert.Equal(members, tried);
    }

    [Theory]
    [MemberData(nameof(Refused))]
    public async Task Unsupported_options_are_refused_by_name(string member, ChatOptions options)
    {
        using LLamaContext context = Weights.CreateContext(ToolModels.Params());
        var executor = new ScriptedExecutor(context, "Yes.");
        using IChatClient client = executor.AsChatClient();
        NotSupportedException error = await Assert.ThrowsAsync<NotSupportedException>(() => client.GetResponseAsync("Hi", options, TestContext.Current.CancellationToken));
        Assert.Contains($"ChatOptions.{member} ", error.Message, StringComparison.Ordinal);
        Assert.Empty(executor.Prompts);
    }

    [Theory]
    [MemberData(nameof(Heeded))]
    public async Task Supported_options_take_effect(string member, ChatOptions options, string expected)
    {
        Assert.NotEmpty(member);
        using LLamaContext context = Weights.CreateContext(ToolModels.Params());
        var executor = new ScriptedExecutor(context, "<think>Hm</think>Now.<tool_call>{\"name\":\"now\"}</tool_call><tool_call>{\"name\":\"now\"}</tool_call>");
        using IChatClient client = executor.AsChatClient();
        ChatResponse response = await client.GetResponseAsync("Hi", options, TestContext.Current.CancellationToken);
        (string what, string value) = (expected[..expected.IndexOf(':', StringComparison.Ordinal)], expected[(expected.IndexOf(':', StringComparison.Ordinal) + 1)..]);
        AIContent[] contents = [.. response.Messages.SelectMany(message => message.Contents)];
        object? actual = what switch
        {
            "prompt" => executor.Prompts.Single().Contains(value, StringComparison.Ordinal) ? value : executor.Prompts.Single(),
            "text" => "",
            "calls" => contents.OfType<FunctionCallContent>().Count(),
            "thoughts" => string.Concat(contents.OfType<TextReasoningContent>()),
            "MaxTokens" => executor.Parameters.Single().MaxTokens,
            _ => typeof(DefaultSamplingPipeline).GetProperty(what)!.GetValue(executor.Parameters.Single().SamplingPipeline),
        };
        Assert.Equal(value, FormattableString.Invariant($"{actual}"));
    }

    [Fact]
    public async Task A_required_tool_must_be_given()
    {
        using LLamaContext context = Weights.CreateContext(ToolModels.Params());
        using IChatClient client = new ScriptedExecutor(context, "Yes.").AsChatClient();
        foreach (ChatOptions options in (ChatOptions[])[new() { ToolMode = ChatToolMode.RequireAny }, new() { Tools = [Now], ToolMode = ChatToolMode.RequireSpecific("then") }])
        {
            ArgumentException error = await Assert.ThrowsAsync<ArgumentException>(() => client.GetResponseAsync("Hi", options, TestContext.Current.CancellationToken));
            Assert.Contains("ChatOptions.ToolMode requires a call", error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Effort_needs_a_template_variable()
    {
        using LLamaContext context = models.Of(("tokenizer.chat_template", "{% for m in messages %}{{ m.content }}{% endfor %}")).CreateContext(ToolModels.Params());
        using IChatClient client = new ScriptedExecutor(context, "Yes.").AsChatClient();
        NotSupportedException error = await Assert.ThrowsAsync<NotSupportedException>(
            () => client.GetResponseAsync("Hi", new() { Reasoning = new() { Effort = ReasoningEffort.Low } }, TestContext.Current.CancellationToken));
        Assert.Contains("ChatOptions.Reasoning.Effort is Low", error.Message, StringComparison.Ordinal);
    }

    private LLamaWeights Weights => models.Marked("<tool_call>");
}
