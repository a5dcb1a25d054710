using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Unicode;
using LlamaKivi.Abstractions;

namespace LlamaKivi.Native;

/// <summary>Type of a metadata value.</summary>
public enum LLamaModelKvOverrideType
{
    /// <summary>An integer.</summary>
    Int = 0,

    /// <summary>A float.</summary>
    Float = 1,

    /// <summary>A Boolean.</summary>
    Bool = 2,

    /// <summary>A string.</summary>
    String = 3,
}

/// <summary>A metadata value that replaces the file's, in the memory layout of llama.cpp's C interface. Programs use <see cref="MetadataOverride"/>.</summary>
[StructLayout(LayoutKind.Explicit, Size = 264)]
public struct LLamaModelMetadataOverride
{
    /// <summary>Type of the value.</summary>
    [FieldOffset(0)]
    public LLamaModelKvOverrideType Tag;

    /// <summary>Key of the entry; an empty key ends a list.</summary>
    [FieldOffset(4)]
    public MetadataText key;

    /// <summary>The value of an <see cref="LLamaModelKvOverrideType.Int"/>.</summary>
    [FieldOffset(136)]
    public long IntValue;

    /// <summary>The value of a <see cref="LLamaModelKvOverrideType.Float"/>.</summary>
    [FieldOffset(136)]
    public double FloatValue;

    /// <summary>The value of a <see cref="LLamaModelKvOverrideType.Bool"/>: 0 or 1.</summary>
    [FieldOffset(136)]
    public long BoolValue;

    /// <summary>The value of a <see cref="LLamaModelKvOverrideType.String"/>.</summary>
    [FieldOffset(136)]
    public MetadataText StringValue;

    /// <summary>Converts a value to this layout.</summary>
    /// <exception cref="ArgumentException">The key or a string has more than 127 bytes of UTF-8, the maximum of the layout.</exception>
    public static LLamaModelMetadataOverride From(MetadataOverride value)
    {
        ArgumentNullException.ThrowIfNull(value);
        var result = new LLamaModelMetadataOverride { key = MetadataText.From(value.Key, value.Key) };
        switch (value.Value)
        {
            case int number:
                (result.Tag, result.IntValue) = (LLamaModelKvOverrideType.Int, number);
                break;
            case float number:
                (result.Tag, result.FloatValue) = (LLamaModelKvOverrideType.Float, number);
                break;
            case bool truth:
                (result.Tag, result.BoolValue) = (LLamaModelKvOverrideType.Bool, truth ? 1 : 0);
                break;
            default:
                (result.Tag, result.StringValue) = (LLamaModelKvOverrideType.String, MetadataText.From((string)value.Value, value.Key));
                break;
        }

        return result;
    }

    /// <summary>Converts the value back.</summary>
    /// <exception cref="ArgumentException">The integer has more than 32 bits, or there is no such tag.</exception>
    public readonly MetadataOverride ToMetadataOverride()
    {
        string name = key.ToString();
        return Tag switch
        {
            LLamaModelKvOverrideType.Int when IntValue is >= int.MinValue and <= int.MaxValue => new MetadataOverride(name, (int)IntValue),
            LLamaModelKvOverrideType.Float => new MetadataOverride(name, (float)FloatValue),
            LLamaModelKvOverrideType.Bool => new MetadataOverride(name, BoolValue != 0),
            LLamaModelKvOverrideType.String => new MetadataOverride(name, StringValue.ToString()),
            _ => throw new ArgumentException($"The value of '{name}' is {IntValue} of the type {Tag}, which no metadata override has."),
        };
    }

    /// <summary>NUL-terminated UTF-8 string.</summary>
    [InlineArray(Size)]
    public struct MetadataText
    {
        private const int Size = 128;

        private byte _first;

        /// <inheritdoc/>
        public override readonly string ToString()
        {
            ReadOnlySpan<byte> bytes = this;
            int end = bytes.IndexOf((byte)0);
            return Encoding.UTF8.GetString(end < 0 ? bytes : bytes[..end]);
        }

        internal static MetadataText From(string text, string key)
        {
            MetadataText result = default;
            Span<byte> bytes = result;
            return Utf8.FromUtf16(text, bytes[..^1], out _, out _) == System.Buffers.OperationStatus.Done
                ? result
                : throw new ArgumentException($"The metadata override '{key}' has a text of more than {Size - 1} bytes of UTF-8, which is what llama.cpp's layout has room for.");
        }
    }
}
