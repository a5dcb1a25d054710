using LlamaKivi.Common;
using LlamaKivi.Hosting;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Server.Tests;

/// <summary>Answers that a model would write, one a call.</summary>
internal sealed class Script(params string[] answers)
{
    private const string Template = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}{# <tool_call>{\"name\": <function-name>, \"arguments\": <args-json-object>}</tool_call> <think></think> #}{{ '<tool_call>' if false }}{{ '<think>' if false }}";

    public List<string> Prompts { get; } = [];

    public StopReason End { get; init; } = StopReason.EndOfGeneration;

    /// <summary>Whether each answer ends with an error of the engine.</summary>
    public bool Fails { get; init; }

    /// <summary>Starts a server whose model writes the answers.</summary>
    public Task<TestServer> StartAsync() => TestServer.StartAsync(
        options => options.CreateChatClient = engine => new GeneratorChatClient(new Generator(this, engine), new Abstractions.ChatClientOptions()),
        engine => engine.MetadataOverrides = [new Abstractions.MetadataOverride("tokenizer.chat_template", Template)]);

    private sealed class Generator(Script script, InferenceEngine engine) : IChatGenerator
    {
        public LLamaWeights? Weights => engine.LoadedWeights;

        public object Source => engine;

        public Task<IDisposable?> WaitTurnAsync(string operation, CancellationToken cancellationToken) => Task.FromResult<IDisposable?>(null);

        public (IAsyncEnumerable<string> Pieces, InferenceResults Results) Generate(IDisposable? turn, PromptText prompt, InferenceParams parameters, CancellationToken cancellationToken)
        {
            script.Prompts.Add(prompt.Value);
            return (WriteAsync(script.Answer(script.Prompts.Count), script.Fails), new InferenceResults { StopReason = script.End });
        }

        private static async IAsyncEnumerable<string> WriteAsync(string answer, bool fails)
        {
            foreach (char[] piece in answer.Chunk(3))
            {
                await Task.Yield();
                yield return new string(piece);
            }

            if (fails)
            {
                throw new InvalidDataException("The device is gone.");
            }
        }
    }

    private string Answer(int call) => answers[Math.Min(call, answers.Length) - 1];
}
