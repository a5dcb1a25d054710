using System.Text.Json;
using System.Text.Json.Schema;
using LlamaKivi.Sampling;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests.Sampling.Schemas;

/// <summary>Random texts of a type's grammar deserialize to the type. LLAMA_KIVI_SCHEMA_TEXTS sets how many: 50 unless it is set.</summary>
public sealed class DotNetTypeTests
{
    private static readonly int Texts = int.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_SCHEMA_TEXTS"), out int n) ? n : 50;

    // Types whose schema states their full range, or whose values fit the defaults of a schema without bounds.
    private static readonly HashSet<Type> SelfDescribed =
    [
        typeof(bool), typeof(long), typeof(Int128), typeof(float), typeof(double), typeof(decimal), typeof(char), typeof(string), typeof(Guid), typeof(DateTime),
        typeof(DateTimeOffset), typeof(DateOnly), typeof(TimeOnly), typeof(TimeSpan), typeof(TimeOnly?), typeof(Uri), typeof(Version), typeof(object), typeof(JsonElement),
        typeof(List<decimal?>), typeof(DotNetTypes.Annotated),
    ];

    public static TheoryData<int, string> Cases => [.. DotNetTypes.All.SelectMany((_, i) => new[] { "AI", "Web", "Default" }.Select(options => (i, options)))];

    public static TheoryData<int, string> PlainCases => [.. DotNetTypes.All.Index().Where(item => SelfDescribed.Contains(item.Item)).SelectMany(item => new[] { "AI", "Web", "Exporter" }.Select(options => (item.Index, options)))];

    [Fact]
    public void There_are_more_than_47_types() => Assert.True(DotNetTypes.All.Length >= 47);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Random_texts_of_a_type_deserialize(int type, string options)
    {
        JsonSerializerOptions serializer = Options(options);
        AssertDeserialize(DotNetTypes.All[type], StructuredOutput.GrammarOf(DotNetTypes.All[type], serializer), serializer);
    }

    [Theory]
    [MemberData(nameof(PlainCases))]
    public void Random_texts_of_a_plain_schema_deserialize(int type, string options)
    {
        Type of = DotNetTypes.All[type];
        JsonSerializerOptions serializer = Options(options);
        string schema = options == "Exporter" ? serializer.GetJsonSchemaAsNode(of).ToJsonString() : AIJsonUtilities.CreateJsonSchema(of, serializerOptions: serializer).GetRawText();
        AssertDeserialize(of, Grammar.FromJsonSchema(schema), serializer);
    }

    // The schema that GetResponseAsync<T> creates for T: properties get bounds from attributes.
    [Fact]
    public void Random_texts_of_bounded_properties_deserialize()
    {
        JsonSerializerOptions serializer = StructuredOutput.WithBounds(AIJsonUtilities.DefaultOptions);
        AssertDeserialize(typeof(DotNetTypes.Numbers), Grammar.FromJsonSchema(AIJsonUtilities.CreateJsonSchema(typeof(DotNetTypes.Numbers), serializerOptions: serializer)), serializer);
    }

    [Theory]
    [InlineData("AI")]
    [InlineData("Web")]
    public void Bounds_that_an_attribute_gives_as_text_are_bounds(string options)
    {
        JsonSerializerOptions serializer = Options(options);
        var texts = new RandomTexts(Grammar.FromJsonSchema(AIJsonUtilities.CreateJsonSchema(typeof(Priced), serializerOptions: serializer)));
        var random = new Random(7);
        for (int i = 0; i < Texts; i++)
        {
            Assert.InRange(JsonSerializer.Deserialize<Priced>(texts.Next(random, 40), serializer)!.Price, 0.01m, 99.99m);
        }
    }

    // Microsoft.Extensions.AI puts the schema of a list into an object, and its references then lead beside it.
    [Fact]
    public async Task Random_texts_of_a_list_of_a_recursive_type_deserialize()
    {
        using var client = new Schemas();
        await client.GetResponseAsync<Tree[]>("Which trees?", cancellationToken: TestContext.Current.CancellationToken);
        AssertDeserialize(typeof(Wrapper<Tree[]>), Grammar.FromJsonSchema(client.Schema), AIJsonUtilities.DefaultOptions);
    }

    internal sealed record Priced([property: System.ComponentModel.DataAnnotations.Range(typeof(decimal), "0.01", "99.99")] decimal Price);

    internal sealed record Tree(string Name, Tree? First, Dictionary<string, Tree> Others);

    internal sealed record Wrapper<T>(T Data);

    /// <summary>Keeps the schema that an answer is to follow.</summary>
    private sealed class Schemas : IChatClient
    {
        public JsonElement Schema { get; private set; }

        public Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
        {
            Schema = ((ChatResponseFormatJson)options!.ResponseFormat!).Schema!.Value;
            return Task.FromResult(new ChatResponse());
        }

        public IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default) =>
            throw new NotSupportedException();

        public object? GetService(Type serviceType, object? serviceKey = null) => null;

        public void Dispose()
        {
        }
    }

    private static JsonSerializerOptions Options(string name) =>
        name switch { "AI" => AIJsonUtilities.DefaultOptions, "Default" => JsonSerializerOptions.Default, _ => JsonSerializerOptions.Web };

    private static void AssertDeserialize(Type type, Grammar grammar, JsonSerializerOptions options)
    {
        var texts = new RandomTexts(grammar);
        var random = new Random(7);
        for (int i = 0; i < Texts; i++)
        {
            string text = texts.Next(random, random.Next(1, 400));
            Exception? error = Record.Exception(() => JsonSerializer.Deserialize(text, type, options));
            Assert.True(error is null, $"{type}: {text}\n{error?.Message}");
        }
    }
}
