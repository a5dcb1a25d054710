using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi;

/// <summary>Source-generated JSON serialization of everything the library saves, compatible with trimming and native AOT.</summary>
/// <remarks>Property names are case-insensitive because earlier versions saved chats with "Messages".</remarks>
[JsonSourceGenerationOptions(WriteIndented = true, PropertyNameCaseInsensitive = true, Converters = [typeof(LLamaTokenConverter)])]
[JsonSerializable(typeof(ChatHistory))]
[JsonSerializable(typeof(StatefulExecutorBase.ExecutorBaseState))]
[JsonSerializable(typeof(IHistoryTransform))]
[JsonSerializable(typeof(ITextTransform[]))]
[JsonSerializable(typeof(ITextStreamTransform))]
[JsonSerializable(typeof(DefaultSamplingPipeline))]
internal sealed partial class LlamaKiviJson : JsonSerializerContext;

/// <summary>Writes a token as its id.</summary>
internal sealed class LLamaTokenConverter : JsonConverter<LLamaToken>
{
    public override LLamaToken Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.GetInt32();

    public override void Write(Utf8JsonWriter writer, LLamaToken value, JsonSerializerOptions options) => writer.WriteNumberValue((int)value);
}
