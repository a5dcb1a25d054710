using System.Globalization;
using System.Text;
using LlamaKivi.Abstractions;
using Microsoft.Extensions.Configuration;

namespace LlamaKivi.Common;

// Readers of the ignored settings: values of the wrong kind are refused even there.
internal static partial class ConfigurationValues
{
    private static readonly string[] BufferKeys = [nameof(TensorBufferOverride.Pattern), nameof(TensorBufferOverride.BufferType)];

    public static Encoding ReadEncoding(IConfigurationSection section)
    {
        string name = Text(section, "the name of an encoding");
        try
        {
            return Encoding.GetEncoding(name);
        }
        catch (ArgumentException e)
        {
            throw Wrong(section, "no encoding has that name", e);
        }
    }

    public static TensorSplitsCollection ReadTensorSplits(IConfigurationSection section)
    {
        float[] parts = section.Value is { Length: > 0 } text
            ? [.. text.Split(',').Select(part => float.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture, out float value) ? value : throw Wrong(section, "numbers are expected"))]
            : [.. section.GetChildren().Select(child => Read<float>(child, "a number"))];
        TensorSplitsCollection? splits = null;
        Set(section, () => splits = new TensorSplitsCollection(parts));
        return splits!;
    }

    public static List<TensorBufferOverride> ReadTensorBufferOverrides(IConfigurationSection section) => [.. Items(section).Select(item =>
    {
        Dictionary<string, IConfigurationSection> parts = Parts(item, BufferKeys, BufferKeys);
        return new TensorBufferOverride(Text(parts["Pattern"], "a pattern"), Text(parts["BufferType"], "a buffer's type"));
    })];
}
