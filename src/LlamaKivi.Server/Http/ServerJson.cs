using System.Text.Json;
using System.Text.Json.Serialization;

namespace LlamaKivi.Server;

/// <summary>JSON contracts of responses.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(ErrorResponse))]
[JsonSerializable(typeof(MessagesError))]
[JsonSerializable(typeof(ModelList))]
[JsonSerializable(typeof(HealthStatus))]
[JsonSerializable(typeof(EngineView))]
[JsonSerializable(typeof(ChatCompletion))]
[JsonSerializable(typeof(ChatCompletionChunk))]
[JsonSerializable(typeof(CompletionView))]
[JsonSerializable(typeof(EmbeddingList))]
[JsonSerializable(typeof(RerankList))]
[JsonSerializable(typeof(TokenList))]
[JsonSerializable(typeof(PieceList))]
[JsonSerializable(typeof(DetokenizedText))]
[JsonSerializable(typeof(TemplatePrompt))]
[JsonSerializable(typeof(PropsView))]
[JsonSerializable(typeof(MessageView))]
[JsonSerializable(typeof(MessageEvent))]
[JsonSerializable(typeof(TokenCount))]
[JsonSerializable(typeof(ResponseView))]
[JsonSerializable(typeof(ResponseEvent))]
[JsonSerializable(typeof(ResponseErrorEvent))]
[JsonSerializable(typeof(SlotView[]))]
[JsonSerializable(typeof(SlotActionView))]
[JsonSerializable(typeof(float[]))]
internal sealed partial class ServerJson : JsonSerializerContext
{
    /// <summary>The contracts; text that is not ASCII stays readable, as the content type is JSON, never HTML.</summary>
    public static ServerJson Text => field ??= new(new JsonSerializerOptions(Default.Options) { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
}
