using System.Reflection;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>NaN and infinity are refused in every number that has an effect, with the setting's name.</summary>
public sealed class FiniteSettingsTests
{
    private static readonly float[] Values = [float.NaN, float.PositiveInfinity, float.NegativeInfinity];

    /// <summary>Every float setting that is not ignored, with each value.</summary>
    public static TheoryData<string, float> Settings => [.. new[] { typeof(ModelParams), typeof(KvCacheParams), typeof(InferenceParams), typeof(DefaultSamplingPipeline) }.SelectMany(type =>
        type.GetProperties(BindingFlags.Public | BindingFlags.Instance)
            .Where(property => (Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType) == typeof(float) && !property.IsDefined(typeof(AcceptedAndIgnoredAttribute)))
            .SelectMany(property => Values.Select(value => ($"{type.Name}.{property.Name}", value))))];

    [Fact]
    public void The_settings_are_found() =>
        Assert.Superset(
            new HashSet<string> { "ModelParams.RopeFrequencyBase", "ModelParams.YarnBetaSlow", "InferenceParams.ContextTruncationPercentage", "DefaultSamplingPipeline.Temperature" },
            Settings.Select(row => row.Data.Item1).ToHashSet());

    [Theory]
    [MemberData(nameof(Settings))]
    public async Task A_number_that_is_not_finite_is_refused_by_name(string setting, float value)
    {
        (string type, string name) = (setting.Split('.')[0], setting.Split('.')[1]);
        Exception? e = await Record.ExceptionAsync(async () =>
        {
            switch (type)
            {
                case nameof(ModelParams):
                    LLamaWeights.LoadFromFile(Set(new ModelParams(InferenceTests.DemoModel.Path), name, value)).Dispose();
                    break;
                case nameof(KvCacheParams):
                    Set(new KvCacheParams(), name, value).Validate();
                    break;
                case nameof(InferenceParams):
                    using (LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path)))
                    using (LLamaContext context = weights.CreateContext(new ModelParams("") { ContextSize = 64 }))
                    {
                        await foreach (string _ in new InteractiveExecutor(context).InferAsync("A", Set(new InferenceParams { MaxTokens = 1 }, name, value)))
                        {
                        }
                    }

                    break;
                default:
                    Set(new DefaultSamplingPipeline(), name, value);
                    break;
            }
        });
        Assert.True(e is ArgumentException or NotSupportedException, $"{setting} = {value}: {e?.ToString() ?? "accepted"}");
        Assert.StartsWith($"{name} is {value}", e!.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_context_refuses_them_too()
    {
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path));
        ArgumentOutOfRangeException e = Assert.Throws<ArgumentOutOfRangeException>(() => weights.CreateContext(new ModelParams("") { ContextSize = 64, RopeFrequencyBase = float.NaN }));
        Assert.StartsWith("RopeFrequencyBase is NaN; it must be a finite positive number, or unset for the model's value.", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(nameof(ModelParams.RopeFrequencyBase), -10000f)]
    [InlineData(nameof(ModelParams.RopeFrequencyScale), -0.5f)]
    [InlineData(nameof(ModelParams.RopeFrequencyScale), float.Epsilon)]  // its reciprocal is infinite
    public void A_frequency_that_is_not_positive_is_refused_by_name(string name, float value)
    {
        ArgumentOutOfRangeException e = Assert.Throws<ArgumentOutOfRangeException>(() => LLamaWeights.LoadFromFile(Set(new ModelParams(InferenceTests.DemoModel.Path), name, value)));
        Assert.StartsWith($"{name} is {value}", e!.Message, StringComparison.Ordinal);
    }

    // A conversion to float would round it.
    [Fact]
    public void Large_counts_are_kept_exactly()
    {
        using var pipeline = new DefaultSamplingPipeline { PenaltyCount = 16777217, DryRange = 16777217, DryAllowedLength = 16777217 };
        Assert.Equal((16777217, 16777217, 16777217), (pipeline.PenaltyCount, pipeline.DryRange, pipeline.DryAllowedLength));
    }

    private static T Set<T>(T parameters, string name, float value)
    {
        try
        {
            typeof(T).GetProperty(name)!.SetValue(parameters, value);
            return parameters;
        }
        catch (TargetInvocationException e)
        {
            throw e.InnerException!;
        }
    }
}
