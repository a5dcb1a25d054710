using System.Globalization;
using LlamaKivi.Common;

namespace LlamaKivi.Tests.Loading;

/// <summary>The line that describes a model.</summary>
public class ModelDescriptionTests
{
    [Fact]
    public void DescriptionIsTheSameInEveryCulture()
    {
        using var weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path));
        CultureInfo culture = CultureInfo.CurrentCulture;
        CultureInfo.CurrentCulture = new CultureInfo("") { NumberFormat = { NumberDecimalSeparator = "," } };
        try
        {
            Assert.Matches(@"^llama \d+\.\dM \w+$", weights.NativeHandle.Description);
        }
        finally
        {
            CultureInfo.CurrentCulture = culture;
        }
    }
}
