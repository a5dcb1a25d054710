using LlamaKivi.Hosting;
using Microsoft.Extensions.AI;

namespace LlamaKivi.Server;

/// <summary>A served model: its engine and names, and its chat client and templates, created on first use.</summary>
internal sealed class ServedModel
{
    private readonly Lazy<IChatClient> _chat;
    private readonly Lazy<ChatTemplate.Cache> _templates;
    private readonly Lazy<IReadOnlyList<string>> _names;

    /// <summary>Serves an engine.</summary>
    /// <param name="engine">The engine.</param>
    /// <param name="options">The server's options.</param>
    /// <param name="aliases">Names in addition to those of the file.</param>
    public ServedModel(InferenceEngine engine, LlamaKiviServerOptions options, IReadOnlyList<string> aliases)
    {
        Engine = engine;
        _chat = new(() => options.CreateChatClient?.Invoke(engine) ?? engine.AsChatClient());
        _templates = new(() => new ChatTemplate.Cache(Weights));
        _names = new(() => [.. aliases.Concat(new ChatModel(Weights).Names).Distinct(StringComparer.OrdinalIgnoreCase)]);
    }

    public InferenceEngine Engine { get; }

    /// <summary>The model's names; responses carry the first. The model must be loaded.</summary>
    public IReadOnlyList<string> Names => _names.Value;

    public LLamaWeights Weights => Engine.LoadedWeights ?? throw ApiException.Loading();

    public IChatClient Chat => _chat.Value;

    public ChatTemplate.Cache Templates => _templates.Value;

    /// <summary>Unix time of the model's file.</summary>
    public long Created => new DateTimeOffset(File.GetLastWriteTimeUtc(Engine.Options.ModelPath)).ToUnixTimeSeconds();
}
