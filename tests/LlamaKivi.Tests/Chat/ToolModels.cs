using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi.Tests;

/// <summary>The demo model with chat templates that describe tools.</summary>
public sealed class ToolModels : IDisposable
{
    // Turns with thoughts, calls and results.
    private const string Turns =
        "{% for m in messages %}<{{ m.role }}{{ ' ' + m.name if m.name }}>{{ '[' + m.reasoning_content + ']' if m.reasoning_content }}{{ m.content }}" +
        "{% for c in m.tool_calls %}(call {{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}){% endfor %}{{ '\n' }}{% endfor %}" +
        "{{ '<assistant>' if add_generation_prompt }}{{ enable_thinking }}";

    private readonly Lock _lock = new();  // property tests use several threads
    private readonly Dictionary<string, LLamaWeights> _models = [];

    public static string Template(string marks) => $"{{% for t in tools or [] %}}{{{{ t | tojson }}}}\n{{% endfor %}}{marks}\n{Turns}";

    /// <summary>Returns a model whose template contains the given marks.</summary>
    public LLamaWeights Marked(string marks) => Of(("tokenizer.chat_template", Template(marks)));

    public LLamaWeights Of(params (string Key, string Value)[] metadata)
    {
        string key = string.Join('\n', metadata);
        lock (_lock)
        {
            if (!_models.TryGetValue(key, out LLamaWeights? weights))
            {
                weights = LLamaWeights.LoadFromFile(
                    new ModelParams(InferenceTests.DemoModel.Path) { MetadataOverrides = [.. metadata.Select(item => new MetadataOverride(item.Key, item.Value))] });
                _models.Add(key, weights);
            }

            return weights;
        }
    }

    public void Dispose()
    {
        foreach (LLamaWeights weights in _models.Values)
        {
            weights.Dispose();
        }
    }

    public static ModelParams Params(uint size = 1024) => new(InferenceTests.DemoModel.Path) { ContextSize = size, Threads = 1, KvCache = KvCacheParams.Parse("f16") };
}
