using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates;

/// <summary>Common chat formats by name, for files without a template.</summary>
/// <remarks>
/// The output equals stock llama.cpp's for the same name, to the last space, because models react to small differences.
/// In these templates m is a message and c its content.
/// </remarks>
internal static class CommonTemplates
{
    private const string EndOfSentence = "<｜end▁of▁sentence｜>";

    private static readonly Dictionary<string, string> Texts = new(StringComparer.Ordinal)
    {
        ["chatml"] = Turns("<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n", "<|im_start|>assistant\n"),

        // A tag with the role, then the content.
        ["falcon3"] = Turns("<|{{ m.role }}|>\n{{ c }}\n", "<|assistant|>\n"),
        ["glmedge"] = Turns("<|{{ m.role }}|>\n{{ c }}", "<|assistant|>"),
        ["chatglm3"] = "[gMASK]sop" + Turns("<|{{ m.role }}|>\n {{ c }}", "<|assistant|>"),
        ["chatglm4"] = "[gMASK]<sop>" + Turns("<|{{ m.role }}|>\n{{ c }}", "<|assistant|>\n"),
        ["phi3"] = Turns("<|{{ m.role }}|>\n{{ c }}<|end|>\n", "<|assistant|>\n"),
        ["phi4"] = Turns("<|im_start|>{{ m.role }}<|im_sep|>{{ c }}<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
        ["zephyr"] = Turns("<|{{ m.role }}|>\n{{ c }}<|endoftext|>\n", "<|assistant|>\n"),
        ["monarch"] = Turns("{% if not loop.first %}<s>{% endif %}{{ m.role }}\n{{ c }}</s>\n", "<s>assistant\n"),
        ["exaone-moe"] = Turns("<|{{ m.role }}|>\n{{ c | trim }}<|endofturn|>\n", "<|assistant|>\n"),
        ["granite"] = Granite,
        ["granite-4.0"] = Granite,
        ["granite-4.1"] = Granite,
        ["llama3"] = Turns("<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ c | trim }}<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ["llama4"] = Turns("<|header_start|>{{ m.role }}<|header_end|>\n\n{{ c | trim }}<|eot|>", "<|header_start|>assistant<|header_end|>\n\n"),
        ["megrez"] = Turns("<|role_start|>{{ m.role }}<|role_end|>{{ c }}<|turn_end|>", "<|role_start|>assistant<|role_end|>"),
        ["solar-open"] = Turns("<|begin|>{{ m.role }}<|content|>{{ c }}<|end|>", "<|begin|>assistant"),
        ["gpt-oss"] = Turns("<|start|>{{ m.role }}<|message|>{{ c }}" + Roles(assistant: "<|return|>", other: "<|end|>"), "<|start|>assistant"),
        ["seed_oss"] = Turns("<seed:bos>{{ m.role }}\n" + Roles(assistant: "{{ c | trim }}", other: "{{ c }}") + "<seed:eos>", "<seed:bos>assistant\n"),
        ["bailing"] = Bailing("", "", "<role>ASSISTANT</role>"),
        ["bailing-think"] = Bailing("", "", "<role>ASSISTANT</role><think>"),
        ["bailing2"] = Bailing(UnlessSystemIsFirst("<role>SYSTEM</role>detailed thinking off<|role_end|>"), "<|role_end|>", "<role>ASSISTANT</role>"),

        // One text per role; roles without a text are omitted.
        ["command-r"] = Turns(
            Roles(system: CommandR("SYSTEM"), user: CommandR("USER"), assistant: CommandR("CHATBOT"), other: ""), "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"),
        ["deepseek"] = Turns(
            Roles(system: "{{ c }}", user: "### Instruction:\n{{ c }}\n", assistant: "### Response:\n{{ c }}\n<|EOT|>\n", other: ""), "### Response:\n"),
        ["deepseek-ocr"] = Turns("{{ c }}"),
        ["deepseek2"] = Turns(
            Roles(system: "{{ c }}\n\n", user: "User: {{ c }}\n\n", assistant: "Assistant: {{ c }}" + EndOfSentence, other: ""), "Assistant:"),
        ["deepseek3"] = Turns(
            Roles(system: "{{ c }}\n\n", user: "<｜User｜>{{ c }}", assistant: "<｜Assistant｜>{{ c }}" + EndOfSentence, other: ""), "<｜Assistant｜>"),
        ["exaone3"] = Turns(
            Roles(
                system: "[|system|]{{ c | trim }}[|endofturn|]\n",
                user: "[|user|]{{ c | trim }}\n",
                assistant: "[|assistant|]{{ c | trim }}[|endofturn|]\n",
                other: ""),
            "[|assistant|]"),
        ["exaone4"] = Turns("[|{{ m.role }}|]{{ c | trim }}" + Roles(user: "{{ '\n' }}", other: "[|endofturn|]{{ '\n' }}"), "[|assistant|]"),
        ["gigachat"] = "<s>" + FirstSystem("{{ c }}<|message_sep|>") + Turns(
            Roles(
                user: "user<|role_sep|>{{ c }}<|message_sep|>available functions<|role_sep|>[]<|message_sep|>", assistant: "assistant<|role_sep|>{{ c }}<|message_sep|>", other: ""),
            "assistant<|role_sep|>"),
        ["grok-2"] = Turns(
            Roles(
                system: "System: {{ c | trim }}<|separator|>\n\n",
                user: "Human: {{ c | trim }}<|separator|>\n\n",
                assistant: "Assistant: {{ c }}<|separator|>\n\n",
                other: ""),
            "Assistant:"),
        ["hunyuan-dense"] = FirstSystem("{{ c }}<｜hy_place▁holder▁no▁3｜>") + Turns(
            Roles(user: "<｜hy_User｜>{{ c }}<｜hy_Assistant｜>", assistant: "<｜hy_Assistant｜>{{ c }}<｜hy_place▁holder▁no▁2｜>", other: "")),
        ["hunyuan-moe"] = Turns(
            Roles(system: "<|startoftext|>{{ c }}<|extra_4|>", assistant: "{{ c }}<|eos|>", other: "<|startoftext|>{{ c }}<|extra_0|>")),
        ["hunyuan-vl"] = "<｜hy_begin▁of▁sentence｜>" + FirstSystem("{{ c }}<｜hy_place▁holder▁no▁3｜>") + Turns(
            Roles(user: "{{ c }}<｜hy_User｜>", assistant: "{{ c }}<｜hy_Assistant｜>", other: "")),
        ["kimi-k2"] = Turns(
            Roles(user: "<|im_user|>", assistant: "<|im_assistant|>", other: "<|im_system|>") + "{{ m.role }}<|im_middle|>{{ c }}<|im_end|>", "<|im_assistant|>assistant<|im_middle|>"),
        ["minicpm"] = Turns(Roles(user: "<用户>{{ c | trim }}<AI>", other: "{{ c | trim }}")),
        ["openchat"] = Turns(
            Roles(system: "", other: "GPT4 Correct {{ m.role | capitalize }}: ") + "{{ c }}<|end_of_turn|>", "GPT4 Correct Assistant:"),
        ["pangu-embedded"] = "{% if messages %}" + UnlessSystemIsFirst("[unused9]系统：[unused10]") + "{% endif %}" + Turns(
            "[unused9]" + Roles(system: "系统", user: "用户", assistant: "助手", other: "工具") + "：{{ c }}[unused10]", "[unused9]助手："),
        ["rwkv-world"] = Turns(
            Roles(
                system: "System: {{ c | trim }}\n\n",
                user: "User: {{ c | trim }}\n\n{% if loop.last %}Assistant:{% endif %}",
                assistant: "Assistant: {{ c | trim }}\n\n",
                other: "")),
        ["smolvlm"] = "<|im_start|>" + Turns(
            Roles(
                system: "{{ c }}\n\n", user: "User: {{ c }}<end_of_utterance>\n", other: "Assistant: {{ c }}<end_of_utterance>\n"),
            "Assistant:"),
        ["vicuna"] = Vicuna("{{ c }}\n\n"),
        ["vicuna-orca"] = Vicuna("SYSTEM: {{ c }}\n"),
        ["yandex"] = Turns(
            Roles(user: " Пользователь: {{ c }}\n\n", assistant: " Ассистент: {{ c }}\n\n", other: ""), " Ассистент:[SEP]"),

        // The system message is put before the next user message.
        ["gemma"] = WithSystemOfUser(
            set: "c | trim",
            turn: "<start_of_turn>" + Roles(assistant: "model", other: "{{ m.role }}") + "{{ '\n' }}" + Roles(assistant: "", other: Pending) + "{{ c | trim }}<end_of_turn>\n",
            answer: "<start_of_turn>model\n"),
        ["orion"] = WithSystemOfUser(
            set: "c",
            turn: Roles(user: "Human: " + Pending + "{{ c }}\n\nAssistant: </s>", other: "{{ c }}</s>")),

        // A system or user message opens a turn; the answer closes it.
        ["llama2"] = "[INST] " + Opened("[INST] ", Roles(system: "{{ c }}\n", user: "{{ c }} [/INST]", other: Closed("{{ c }}</s>")), opened: true),
        ["llama2-sys"] = Llama2("[INST] ", "c"),
        ["llama2-sys-bos"] = Llama2("<s>[INST] ", "c"),
        ["llama2-sys-strip"] = Llama2("[INST] ", "c | trim"),
        ["mistral"] = Opened("[INST] ", Roles(system: "{{ c }}\n\n", user: "{{ c }} [/INST]", other: Closed(" {{ c }}</s>"))),
        ["mistral-v1"] = Mistral(" [INST] ", " [/INST]", " {{ c }}"),
        ["mistral-v3"] = Mistral("[INST] ", "[/INST]", " {{ c | trim }}"),
        ["mistral-v3-tekken"] = Mistral("[INST]", "[/INST]", "{{ c }}"),
        ["mistral-v7"] = Turns(Roles(system: "[SYSTEM_PROMPT] {{ c }}[/SYSTEM_PROMPT]", user: "[INST] {{ c }}[/INST]", other: " {{ c }}</s>")),
        ["mistral-v7-tekken"] = Turns(Roles(system: "[SYSTEM_PROMPT]{{ c }}[/SYSTEM_PROMPT]", user: "[INST]{{ c }}[/INST]", other: "{{ c }}</s>")),
    };

    /// <summary>All names.</summary>
    public static IEnumerable<string> Names => Texts.Keys;

    private static string Granite => Turns("<|start_of_role|>{{ m.role }}<|end_of_role|>{{ c }}<|end_of_text|>\n", "<|start_of_role|>assistant<|end_of_role|>");

    private static string Pending => "{% if ns.system %}{{ ns.system ~ '\n\n' }}{% set ns.system = '' %}{% endif %}";

    /// <summary>The template with a name; null: unknown name.</summary>
    public static string? Find(string name) => Texts.GetValueOrDefault(name);

    // All messages, then the header of the answer.
    private static string Turns(string turn, string answer = "") =>
        "{% for m in messages %}{% set c = m.content %}" + turn + "{% endfor %}{% if add_generation_prompt %}" + answer + "{% endif %}";

    // The text for a role. Jinja drops a line break after a statement, so a text that begins with one is written as an output.
    private static string Roles(string other, string? system = null, string? user = null, string? assistant = null)
    {
        var text = new StringBuilder();
        foreach ((string role, string? part) in new[] { ("system", system), ("user", user), ("assistant", assistant) })
        {
            if (part is not null)
            {
                text.Append(text.Length == 0 ? "{% if" : "{% elif").Append(CultureInfo.InvariantCulture, $" m.role == '{role}' %}}").Append(part);
            }
        }

        return text.Append("{% else %}").Append(other).Append("{% endif %}").ToString();
    }

    private static string FirstSystem(string text) =>
        "{% if messages and messages[0].role == 'system' %}{% set c = messages[0].content %}" + text + "{% endif %}";

    private static string UnlessSystemIsFirst(string text) => "{% if not messages or messages[0].role != 'system' %}" + text + "{% endif %}";

    private static string Bailing(string before, string end, string answer) =>
        before + Turns("<role>" + Roles(user: "HUMAN", other: "{{ m.role | upper }}") + "</role>{{ c }}" + end, answer);

    private static string CommandR(string role) => $"<|START_OF_TURN_TOKEN|><|{role}_TOKEN|>{{{{ c | trim }}}}<|END_OF_TURN_TOKEN|>";

    private static string Vicuna(string system) => Turns(
        Roles(system: system, user: "USER: {{ c }}\n", assistant: "ASSISTANT: {{ c }}</s>\n", other: ""), "ASSISTANT:");

    private static string WithSystemOfUser(string set, string turn, string answer = "") =>
        "{% set ns = namespace(system='') %}" + Turns("{% if m.role == 'system' %}{% set ns.system = ns.system ~ (" + set + ") %}{% else %}" + turn + "{% endif %}", answer);

    private static string Opened(string open, string turn, bool opened = false) =>
        "{% set ns = namespace(open=" + (opened ? "true" : "false") + ") %}" + Turns("{% if not ns.open %}{% set ns.open = true %}" + open + "{% endif %}" + turn);

    private static string Closed(string text) => text + "{% set ns.open = false %}";

    private static string Llama2(string open, string said) => "[INST] " + Opened(
        open,
        Roles(system: "<<SYS>>\n{{ " + said + " }}\n<</SYS>>\n\n", user: "{{ " + said + " }} [/INST]", other: Closed("{{ " + said + " }}</s>")),
        opened: true);

    private static string Mistral(string open, string close, string answer) =>
        Opened(open, Roles(system: "{{ c }}\n\n", user: "{{ c }}" + close, other: Closed(answer + "</s>")));
}
