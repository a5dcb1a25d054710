using System.Collections;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace LlamaKivi.Abstractions;

/// <summary>Proportion of the model per device.</summary>
[JsonConverter(typeof(TensorSplitsCollectionConverter))]
public sealed class TensorSplitsCollection : IEnumerable<float>
{
    private const int Devices = 16;

    private readonly float[] _splits = new float[Devices];

    /// <summary>All proportions are 0.</summary>
    public TensorSplitsCollection()
    {
    }

    /// <summary>Copies the proportions.</summary>
    /// <exception cref="ArgumentException">There are more proportions than devices.</exception>
    public TensorSplitsCollection(float[] splits)
    {
        ArgumentNullException.ThrowIfNull(splits);
        if (splits.Length > Devices)
        {
            throw new ArgumentException($"{splits.Length} tensor splits are given; the maximum is {Devices}, one per device.", nameof(splits));
        }

        splits.CopyTo(_splits, 0);
    }

    /// <summary>Number of proportions.</summary>
    public int Length => _splits.Length;

    /// <summary>Proportion of one device.</summary>
    public float this[int index]
    {
        get => _splits[index];
        set => _splits[index] = value;
    }

    /// <summary>Sets all proportions to 0.</summary>
    public void Clear() => Array.Clear(_splits);

    /// <inheritdoc/>
    public IEnumerator<float> GetEnumerator() => ((IEnumerable<float>)_splits).GetEnumerator();

    /// <inheritdoc/>
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}

/// <summary>A <see cref="TensorSplitsCollection"/> as an array of numbers.</summary>
public class TensorSplitsCollectionConverter : JsonConverter<TensorSplitsCollection>
{
    /// <inheritdoc/>
    /// <exception cref="JsonException">The value is not an array of numbers, or has more elements than devices.</exception>
    public override TensorSplitsCollection Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        var splits = new TensorSplitsCollection();
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            throw new JsonException($"An array of numbers was expected, not {reader.TokenType}.");
        }

        for (int i = 0; reader.Read() && reader.TokenType != JsonTokenType.EndArray; i++)
        {
            if (i == splits.Length)
            {
                throw new JsonException($"The array must have at most {splits.Length} numbers.");
            }

            splits[i] = reader.GetSingle();
        }

        return splits;
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, TensorSplitsCollection value, JsonSerializerOptions options)
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(value);
        writer.WriteStartArray();
        foreach (float split in value)
        {
            writer.WriteNumberValue(split);
        }

        writer.WriteEndArray();
    }
}
