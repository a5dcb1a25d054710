namespace LlamaKivi;

/// <summary>Syntax of a model's tool calls.</summary>
internal enum CallStyle
{
    /// <summary>{"name": ..., "arguments": {...}}</summary>
    Json,

    /// <summary>{"name": ..., "parameters": {...}}, which the templates of Llama 3 request.</summary>
    JsonParameters,

    /// <summary>{"tool_calls": [{"function": {...}}]}</summary>
    OpenAi,

    /// <summary>The JSON of a call between &lt;tool_call&gt; and &lt;/tool_call&gt;.</summary>
    Hermes,

    /// <summary>&lt;tool_call&gt;&lt;function=name&gt;&lt;parameter=key&gt;value...</summary>
    QwenCoder,

    /// <summary>&lt;tool_call&gt;name&lt;arg_key&gt;key&lt;/arg_key&gt;&lt;arg_value&gt;value...</summary>
    Glm,

    /// <summary>&lt;function=name&gt;{...}&lt;/function&gt;</summary>
    Function,

    /// <summary>[TOOL_CALLS] and a list of calls.</summary>
    MistralList,

    /// <summary>[TOOL_CALLS]name[ARGS]{...}</summary>
    MistralArgs,

    /// <summary>&lt;|tool_call|&gt; and a list of calls.</summary>
    Granite,

    /// <summary>A list of calls between &lt;TOOLCALL&gt; and &lt;/TOOLCALL&gt;.</summary>
    Nemotron,

    /// <summary>A message with the recipient functions.name (Harmony).</summary>
    Harmony,

    /// <summary>A section of calls: the kind "function", a name, and JSON arguments in a fence.</summary>
    DeepSeekFence,

    /// <summary>A section of calls: a name and JSON arguments.</summary>
    DeepSeek,

    /// <summary>A section of calls: functions.name:index and JSON arguments.</summary>
    Kimi,

    /// <summary>A section of &lt;invoke name="..."&gt;&lt;parameter name="..."&gt;value...</summary>
    MiniMax,

    /// <summary>A list of name(key=value, ...) between &lt;|tool_call_start|&gt; and &lt;|tool_call_end|&gt;.</summary>
    Python,
}

/// <summary>Marks around a model's thoughts.</summary>
internal sealed record ThoughtMarks(string Open, string Close);

/// <summary>The marks of calls and thoughts that a chat template contains.</summary>
internal sealed class AnswerFormat
{
    private static readonly ThoughtMarks[] KnownThoughts =
    [
        new("<think>", "</think>"),
        new("<thinking>", "</thinking>"),
        new("<thought>", "</thought>"),
        new("<seed:think>", "</seed:think>"),
        new("[THINK]", "[/THINK]"),
        new("<|START_THINKING|>", "<|END_THINKING|>"),
    ];

    // Texts in a template that identify a style; the first match wins.
    private static readonly (CallStyle Style, string[] Shown)[] Styles =
    [
        (CallStyle.Harmony, [HarmonyHeader.ChannelMark, HarmonyHeader.Message]),
        (CallStyle.MistralArgs, ["[TOOL_CALLS]", "[ARGS]"]),
        (CallStyle.MistralList, ["[TOOL_CALLS]"]),
        (CallStyle.DeepSeekFence, [DeepSeekReader.Open, DeepSeekReader.OpenFence]),
        (CallStyle.DeepSeek, [DeepSeekReader.Open]),
        (CallStyle.Kimi, [KimiReader.Open]),
        (CallStyle.MiniMax, [InvokeReader.Open]),
        (CallStyle.Python, [PythonCallReader.Open]),
        (CallStyle.Python, ["<|tool_list_start|>"]),
        (CallStyle.QwenCoder, [ToolCallTagReader.Open, FunctionTagReader.Open]),
        (CallStyle.Glm, [ToolCallTagReader.Open, ToolCallTagReader.OpenKey]),
        (CallStyle.Hermes, [ToolCallTagReader.Open]),
        (CallStyle.Function, [FunctionTagReader.Open]),
        (CallStyle.Granite, ["<|tool_call|>"]),
        (CallStyle.Nemotron, ["<TOOLCALL>"]),
        (CallStyle.JsonParameters, ["<|python_tag|>"]),
        (CallStyle.JsonParameters, ["\\\"parameters\\\":", "<|start_header_id|>"]),
        (CallStyle.JsonParameters, ["\"parameters\":", "<|start_header_id|>"]),
        (CallStyle.OpenAi, ["{\"tool_calls\""]),
        (CallStyle.OpenAi, ["{\\\"tool_calls\\\""]),
        (CallStyle.Json, []),
    ];

    private static readonly CallReader[] JsonReaders = [new FencedJsonReader(), new BareJsonReader()];

    private static readonly CallReader ToolCallTag = new ToolCallTagReader();
    private static readonly CallReader FunctionTag = new FunctionTagReader();
    private static readonly CallReader Mistral = new MistralReader();
    private static readonly CallReader Granite = new MarkedJsonReader("<|tool_call|>", "<|/tool_call|>");
    private static readonly CallReader Nemotron = new MarkedJsonReader("<TOOLCALL>", "</TOOLCALL>");
    private static readonly CallReader PythonTag = new MarkedJsonReader("<|python_tag|>");
    private static readonly CallReader DeepSeek = new DeepSeekReader();
    private static readonly CallReader Kimi = new KimiReader();
    private static readonly CallReader MiniMax = new InvokeReader();
    private static readonly CallReader Python = new PythonCallReader();
    private static readonly CallReader[] MarkReaders =
        [ToolCallTag, FunctionTag, Mistral, Granite, Nemotron, PythonTag, DeepSeek, Kimi, MiniMax, Python, new MarkedJsonReader("<|START_ACTION|>", "<|END_ACTION|>"), new MarkedJsonReader("functools")];

    private AnswerFormat(CallStyle style, CallReader[] own, ThoughtMarks[] shownThoughts)
    {
        Style = style;
        // A template without marks does not tell which style its model writes: accept all.
        Readers = [.. own.Length > 0 ? own : MarkReaders, .. JsonReaders];
        OwnReaders = own.Length == 0 ? [JsonReaders[^1]] : style == CallStyle.JsonParameters ? [PythonTag, JsonReaders[^1]] : own;
        ShownThoughts = shownThoughts;
        Thoughts = [.. shownThoughts.Append(KnownThoughts[0]).Distinct()];
    }

    /// <summary>The format of models without a template.</summary>
    public static AnswerFormat Plain { get; } = Of("");

    public CallStyle Style { get; }

    public bool IsHarmony => Style == CallStyle.Harmony;

    /// <summary>Readers of calls, in order of precedence.</summary>
    public CallReader[] Readers { get; }

    /// <summary>Readers of calls in the model's own style.</summary>
    public CallReader[] OwnReaders { get; }

    /// <summary>Marks of thoughts: those of the template, and &lt;think&gt;.</summary>
    public ThoughtMarks[] Thoughts { get; }

    /// <summary>Marks of thoughts in the template.</summary>
    public ThoughtMarks[] ShownThoughts { get; }

    /// <summary>Marks that may be control tokens of the vocabulary. The parser needs them as text.</summary>
    public IEnumerable<string> Marks =>
        Readers.SelectMany(reader => reader.Marks).Concat(Thoughts.SelectMany(marks => new[] { marks.Open, marks.Close })).Concat(IsHarmony ? HarmonyHeader.Marks : []).Distinct(StringComparer.Ordinal);

    /// <summary>Detects the format from the text of a chat template.</summary>
    public static AnswerFormat Of(string template)
    {
        CallStyle style = Array.Find(Styles, known => Array.TrueForAll(known.Shown, mark => template.Contains(mark, StringComparison.Ordinal))).Style;
        CallReader[] own = style switch
        {
            CallStyle.Hermes or CallStyle.QwenCoder or CallStyle.Glm => [ToolCallTag, FunctionTag],
            CallStyle.Function => [FunctionTag],
            CallStyle.MistralArgs or CallStyle.MistralList => [Mistral],
            CallStyle.Granite => [Granite],
            CallStyle.Nemotron => [Nemotron],
            CallStyle.JsonParameters => [PythonTag, FunctionTag],
            CallStyle.DeepSeekFence or CallStyle.DeepSeek => [DeepSeek],
            CallStyle.Kimi => [Kimi],
            CallStyle.MiniMax => [MiniMax],
            CallStyle.Python => [Python],
            _ => [],
        };
        return new AnswerFormat(style, own, [.. KnownThoughts.Where(marks => template.Contains(marks.Open, StringComparison.Ordinal) || template.Contains(marks.Close, StringComparison.Ordinal))]);
    }

    /// <summary>The marks of a thought that the end of a prompt opens; null: none.</summary>
    public ThoughtMarks? OpenAtEnd(string prompt)
    {
        string end = prompt.TrimEnd();
        return Array.Find(ShownThoughts, marks => end.EndsWith(marks.Open, StringComparison.Ordinal));
    }
}
