using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi;

/// <summary>How what the library saves as JSON is written; generated, so that trimming and native compilation keep it.</summary>
/// <remarks>Names are read in any case: chats were saved with "Messages" once.</remarks>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNameCaseInsensitive = true, Converters = [typeof(LLamaTokenConverter)])]
[JsonSerializable(typeof(ChatHistory))]
[JsonSerializable(typeof(StatefulExecutorBase.ExecutorBaseState))]
[JsonSerializable(typeof(IHistoryTransform))]
[JsonSerializable(typeof(ITextTransform[]))]
[JsonSerializable(typeof(ITextStreamTransform))]
[JsonSerializable(typeof(DefaultSamplingPipeline))]
internal sealed partial class LlamaKiviJson : JsonSerializerContext;

/// <summary>A token as its number.</summary>
internal sealed class LLamaTokenConverter : JsonConverter<LLamaToken>
{
    public override LLamaToken Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.GetInt32();

    public override void Write(Utf8JsonWriter writer, LLamaToken value, JsonSerializerOptions options) => writer.WriteNumberValue((int)value);
}
