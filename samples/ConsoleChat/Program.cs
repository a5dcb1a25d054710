// A console chat with the model's own chat template. Usage: ConsoleChat MODEL.gguf
using LlamaKivi;
using LlamaKivi.Common;
using LlamaKivi.Sampling;
using LlamaKivi.Transformers;

var parameters = new ModelParams(args[0])
{
    ContextSize = 4096,
    KvCache = KvCacheParams.Parse("kivi2"),  // 2.5 bits per cached element instead of 16
};
using LLamaWeights weights = await LLamaWeights.LoadFromFileAsync(parameters);
using LLamaContext context = weights.CreateContext(parameters);

var session = new ChatSession(new InteractiveExecutor(context));
if (weights.NativeHandle.GetTemplate(strict: false) is not null)
{
    session.WithHistoryTransform(new PromptTemplateTransformer(weights));
}

session.AddSystemMessage("You are a helpful assistant who answers in one or two sentences.");
var inference = new InferenceParams
{
    MaxTokens = 200,
    AntiPrompts = ["User:"],
    SamplingPipeline = new DefaultSamplingPipeline { Temperature = 0.6f, Seed = 1 },
    OverflowStrategy = ContextOverflowStrategy.Shift,  // drops the oldest turns of a long conversation
};

while (true)
{
    Console.Write("User: ");
    if (Console.ReadLine() is not { Length: > 0 } message)
    {
        break;
    }

    await foreach (string text in session.ChatAsync(new ChatHistory.Message(AuthorRole.User, message), inference))
    {
        Console.Write(text);
    }

    Console.WriteLine();
}
