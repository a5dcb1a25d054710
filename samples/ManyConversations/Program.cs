// Several continuations of one prompt, decoded together in one context. Usage: ManyConversations MODEL.gguf [PROMPT]
using LlamaKivi;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

const int Conversations = 4;
const int Tokens = 24;

string prompt = args.Length > 1 ? args[1] : "The garbage collector";
var parameters = new ModelParams(args[0]) { ContextSize = 2048, SeqMax = Conversations };
using LLamaWeights weights = await LLamaWeights.LoadFromFileAsync(parameters);
using var executor = new BatchedExecutor(weights, parameters);

// The prompt is prefilled once; the forks share its pages of the cache.
Conversation first = executor.Create();
first.Prompt(prompt);
await executor.Infer();
Conversation[] conversations = [first, .. Enumerable.Range(1, Conversations - 1).Select(_ => first.Fork())];
var samplers = conversations.Select((_, i) => new DefaultSamplingPipeline { Seed = (uint)i, Temperature = 0.8f }).ToArray();
var decoders = conversations.Select(_ => new StreamingTokenDecoder(executor.Context)).ToArray();

for (int n = 0; n < Tokens; n++)
{
    for (int i = 0; i < conversations.Length; i++)
    {
        LLamaToken token = conversations[i].Sample(samplers[i]);
        decoders[i].Add(token);
        conversations[i].Prompt(token);
    }

    await executor.Infer();  // one forward pass for all conversations
}

for (int i = 0; i < conversations.Length; i++)
{
    Console.WriteLine($"{i + 1}: {prompt}{decoders[i].Read()}".ReplaceLineEndings(" "));
    conversations[i].Dispose();
}
