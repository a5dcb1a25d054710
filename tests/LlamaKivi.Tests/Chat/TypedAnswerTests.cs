using System.Reflection;
using System.Text.Json;
using LlamaKivi.Abstractions;
using LlamaKivi.Sampling;
using LlamaKivi.Tests.Sampling;
using LlamaKivi.Tests.Sampling.Schemas;
using Microsoft.Extensions.AI;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Plain calls of <c>GetResponseAsync&lt;T&gt;</c>, and arguments of tools: numbers fit their .NET type.</summary>
public sealed class TypedAnswerTests(ToolModels models) : IClassFixture<ToolModels>
{
    private const string Nines = "99999999999999999999999999";
    private const int Texts = 40;

    public record Numbers(int A, byte B, short C, long D, decimal E, double F, float G, TimeSpan H, DateTime I, ushort? J);

    public record Order(short Count, Line First, Line[] Lines, List<byte> Codes, Dictionary<int, sbyte> Stock, byte[] Image);

    public record Line(byte Quantity, uint Price);

    public static TheoryData<Type> Known =>
    [
        typeof(sbyte), typeof(byte), typeof(short), typeof(ushort), typeof(int), typeof(uint), typeof(long), typeof(ulong), typeof(Half), typeof(float), typeof(double), typeof(decimal), typeof(TimeSpan),
        typeof(DateTime), typeof(int[]), typeof(byte[]), typeof(Line[]), typeof(Numbers), typeof(Order), typeof(DotNetTypes.Numbers), typeof(DayOfWeek), typeof(bool),
    ];

    public static TheoryData<Type, string> Begun => new()
    {
        { typeof(sbyte), "{\"data\":" }, { typeof(byte), "{\"data\":" }, { typeof(short), "{\"data\":" }, { typeof(int), "{\"data\":-" }, { typeof(uint), "{\"data\":" }, { typeof(long), "{\"data\":" },
        { typeof(int[]), "{\"data\":[" }, { typeof(Line), "{\"quantity\":" }, { typeof(Numbers), "{\"a\":" },
    };

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private IChatClient Client(string marks, string beginning)
    {
        var executor = new StatelessExecutor(models.Marked(marks), ToolModels.Params());
        return new PromptedExecutor(executor, executor.Context.Weights.Tokenizer.Encode(beginning, addBos: false, parseSpecial: false)).AsChatClient();
    }

    // The model begins a number that no type holds, as far as the grammar lets it.
    [Theory]
    [MemberData(nameof(Begun))]
    public Task A_plain_call_gives_numbers_that_fit_the_type(Type type, string beginning) => Generic(nameof(AnswerAsync), type, beginning + Nines);

    private async Task AnswerAsync<T>(string beginning)
    {
        using IChatClient client = Client("", beginning);
        ChatResponse<T> response = await client.GetResponseAsync<T>("How many?", new ChatOptions { Temperature = 0, MaxOutputTokens = 500 }, cancellationToken: Token);
        Assert.True(response.TryGetResult(out T? result), response.Text);
        Assert.NotNull(result);
    }

    [Theory]
    [MemberData(nameof(Known))]
    public Task Random_texts_of_a_plain_call_deserialize(Type type) => Generic(nameof(RandomAsync), type, "");

    private static async Task RandomAsync<T>(string unused)
    {
        using var client = new RandomClient();
        for (int i = 0; i < Texts; i++)
        {
            ChatResponse<T> response = await client.GetResponseAsync<T>("How many?", cancellationToken: Token);
            Exception? error = Record.Exception(() => response.Result);
            Assert.True(error is null, $"{response.Text}\n{error?.Message}");
        }
    }

    // A list leaves the name of the list only. A name that two types have with the same schema says nothing, unless their bounds are the same.
    [Fact]
    public async Task An_unknown_type_has_integers_of_64_bits()
    {
        using var client = new RandomClient();
        foreach (Func<Task> call in (Func<Task>[])[() => client.GetResponseAsync<List<byte>>("Hi", cancellationToken: Token), () => client.GetResponseAsync<One.Same>("Hi", cancellationToken: Token)])
        {
            await call();
            Assert.DoesNotContain("minimum", client.Schema!.Value.GetRawText(), StringComparison.Ordinal);
        }

        await client.GetResponseAsync<One.Equal>("Hi", cancellationToken: Token);
        Assert.Contains("\"maximum\":255", client.Schema!.Value.GetRawText(), StringComparison.Ordinal);
    }

    [Fact]
    public void A_schema_of_a_programs_own_stays_as_it_is()
    {
        foreach (string schema in (string[])["""{"type":"object","properties":{"quantity":{"type":"integer"}}}""", """{"type":"object","properties":{"data":{"type":"integer","minimum":-5}}}""", "true"])
        {
            JsonElement element = JsonDocument.Parse(schema).RootElement;
            foreach (string? name in (string?[])["Line", "Int32", "no_type", null])
            {
                Assert.True(JsonElement.DeepEquals(element, TypedSchemas.Of(ChatResponseFormat.ForJsonSchema(element, name))!.Value));
            }
        }

        Assert.Null(TypedSchemas.Of(ChatResponseFormat.Json));
    }

    [Fact]
    public async Task Arguments_of_a_tool_fit_its_parameters()
    {
        AIFunction take = AIFunctionFactory.Create((byte count, Line line, CancellationToken stop) => count + line.Quantity, "take");
        using IChatClient client = Client("<tool_call>", "<tool_call>\n{\"name\": \"take\", \"arguments\": {\"count\":" + Nines);
        ChatOptions options = new() { Tools = [take], ToolMode = ChatToolMode.RequireAny, AllowMultipleToolCalls = false, Temperature = 0, MaxOutputTokens = 500 };
        ChatResponse response = await client.GetResponseAsync("Take some.", options, Token);
        FunctionCallContent call = Assert.Single(response.Messages.Single().Contents.OfType<FunctionCallContent>());
        Assert.NotNull(await take.InvokeAsync(new AIFunctionArguments(call.Arguments), Token));

        var texts = new RandomTexts(Grammar.FromJsonSchema(TypedSchemas.Of(take)));
        var random = new Random(3);
        for (int i = 0; i < Texts; i++)
        {
            var arguments = JsonSerializer.Deserialize<Dictionary<string, object?>>(texts.Next(random, random.Next(1, 200)))!;
            Assert.NotNull(await take.InvokeAsync(new AIFunctionArguments(arguments), Token));
        }

        AIFunctionDeclaration declared = AIFunctionFactory.CreateDeclaration("take", null, take.JsonSchema);
        Assert.True(JsonElement.DeepEquals(take.JsonSchema, TypedSchemas.Of(declared)));
    }

    private Task Generic(string method, Type type, string argument) =>
        (Task)typeof(TypedAnswerTests).GetMethod(method, BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static)!.MakeGenericMethod(type).Invoke(this, [argument])!;

    public static class One
    {
        public record Same(byte Value);

        public record Equal(byte Value);
    }

    public static class Other
    {
        public record Same(int Value);

        public record Equal(byte Value);
    }

    // Answers with a random text of the grammar.
    private sealed class RandomClient : IChatClient
    {
        private readonly Random _random = new(11);
        private RandomTexts? _texts;

        public JsonElement? Schema { get; private set; }

        public Task<ChatResponse> GetResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
        {
            Schema = TypedSchemas.Of((ChatResponseFormatJson)options!.ResponseFormat!);
            _texts ??= new RandomTexts(Grammar.FromJsonSchema(Schema!.Value));
            return Task.FromResult(new ChatResponse(new ChatMessage(ChatRole.Assistant, _texts.Next(_random, _random.Next(1, 300)))));
        }

        public IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default) => throw new NotSupportedException();

        public object? GetService(Type serviceType, object? serviceKey = null) => null;

        public void Dispose()
        {
        }
    }
}
