using System.Text.Json;

namespace LlamaKivi.Templates.Tests;

public class JinjaTemplateTests
{
    private const string Conversation =
        """[{"role":"system","content":" Be brief. "},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello!"},{"role":"user","content":"Bye"}]""";

    [Theory]
    [InlineData("{{ 1 + 2 * 3 ** 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2.0 }} {{ 10 - 2 - 3 }}", "19 3 -4 2 3.5 2.0 5")]
    [InlineData("{{ 'a' ~ 1 ~ true ~ none ~ 1.5 }}", "a1TrueNone1.5")]
    [InlineData("{{ 'it''s' }}{{ \"a\\n\\\"b\\\"\" }}", "its" + "a\n\"b\"")]
    [InlineData("{{ 1 < 2 <= 2 != 3 and not false or x.y }}", "True")]
    [InlineData("{{ 'b' in 'abc' }}{{ 2 not in [1, 3] }}{{ 'k' in {'k': 1} }}", "TrueTrueTrue")]
    [InlineData("{{ [1, 'two', none, (3,)] }} {{ {'a': [true]} }}", "[1, 'two', None, (3,)] {'a': [True]}")]
    [InlineData("{{ 'yes' if 0 else 'no' }}{{ 'x' if false }}", "no")]
    [InlineData("{{ [1,2,3,4][1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[-3:] }} {{ [1,2][5] is defined }}", "[2, 3] olleh llo False")]
    [InlineData("{{ missing }}{{ missing is undefined }}{{ missing | default('d') }}{{ '' | default('e', true) }}", "Truede")]
    [InlineData("{{ ' a ' | trim | upper }}{{ [1,2] | join('-') }}{{ 'abc' | length }}{{ 'a.b' | replace('.', '!') }}", "A1-23a!b")]
    [InlineData("{{ {'b': [1, 2.5, none], 'a': 'ü\"'} | tojson }}", "{\"b\": [1, 2.5, null], \"a\": \"ü\\\"\"}")]
    [InlineData("{{ {'a': [1]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ]\n}")]
    [InlineData("{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}", "x=1,y=2")]
    [InlineData("{% for i in range(5) if i % 2 == 0 %}{{ loop.index }}:{{ i }} {% else %}none{% endfor %}", "1:0 2:2 3:4 ")]
    [InlineData("{% for i in [] %}x{% else %}none{% endfor %}", "none")]
    [InlineData("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", "013")]
    [InlineData("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1")]
    [InlineData("{% set ns = namespace(x=1) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}", "4")]
    [InlineData("{% set a, b = 1, 2 %}{{ b }}{{ a }}{% set t %}body {{ a }}{% endset %}[{{ t }}]", "21[body 1]")]
    [InlineData("{% macro greet(name, mark='!') %}Hi {{ name }}{{ mark }}{% endmacro %}{{ greet('A') }} {{ greet('B', mark='?') }}", "Hi A! Hi B?")]
    [InlineData("{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "3210")]
    [InlineData("{{ 'a,b,c'.split(',')[1] }}{{ ' x '.strip() }}{{ 'Abc'.startswith('Ab') }}{{ 'a'.upper() }}{{ {'k': 5}.get('k') }}{{ {}.get('z', 7) }}", "bxTrueA57")]
    [InlineData("{{ [{'n': 1, 'on': true}, {'n': 2}] | selectattr('on', 'defined') | map(attribute='n') | list }}", "[1]")]
    [InlineData("{{ [1,2,3] | select('odd') | list }}{{ ['b','A'] | sort | join }}{{ [3,1] | max }}{{ 'x' | int(9) }}{{ '4' | int }}", "[1, 3]Ab394")]
    [InlineData("{{ 3 is odd }}{{ 'a' is string }}{{ [] is sequence }}{{ {} is mapping }}{{ none is none }}{{ 6 is divisibleby 3 }}{{ 1 is not string }}", "TrueTrueTrueTrueTrueTrueTrue")]
    [InlineData("a\n  {% if true %}\n  b\n  {% endif %}\nc {%- if true -%} d {%- endif %} e", "a\n  b\ncd e")]
    [InlineData("{#- a note -#} x {{- ' y ' -}} z{# end #}", "x y z")]
    [InlineData("{% filter upper %}a{{ 'b' }}{% endfilter %}{% generation %}c{% endgeneration %}", "ABc")]
    [InlineData("{{ 'line\nnext' | indent(2) }}", "line\n  next")]
    [InlineData("{{ strftime_now('%d %b %Y %H:%M') }}", "09 Mar 2026 07:05")]
    public void Expressions_evaluate_as_in_jinja2(string template, string expected) =>
        Assert.Equal(expected, new JinjaTemplate(template).Render([], new MorningTime()));

    [Theory]
    [InlineData(  // ChatML with a default system message
        """
        {% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nDefault<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
        """,
        "<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n")]
    [InlineData(  // Llama 3
        """
        {{- bos_token }}
        {%- if messages[0].role == 'system' %}
            {%- set system_message = messages[0].content | trim %}
            {%- set messages = messages[1:] %}
        {%- else %}
            {%- set system_message = "" %}
        {%- endif %}
        {{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
        {{- "Today Date: " + strftime_now("%d %b %Y") + "\n\n" }}
        {{- system_message }}
        {{- "<|eot_id|>" }}
        {%- for message in messages %}
            {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
            {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
            {%- endif %}
        {%- endfor %}
        {%- if add_generation_prompt %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
        {%- endif %}
        """,
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 09 Mar 2026\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>" +
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")]
    [InlineData(  // Mistral: the system message goes into the last user message
        """
        {%- if messages[0]["role"] == "system" -%}{%- set system_message = messages[0]["content"] -%}{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set loop_messages = messages -%}{%- endif -%}
        {{- bos_token }}
        {%- for message in loop_messages %}
            {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}{{- raise_exception("roles must alternate") }}{%- endif %}
            {%- if message["role"] == "user" %}
                {%- if loop.last and system_message is defined %}
                    {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
                {%- else %}
                    {{- "[INST] " + message["content"] + "[/INST]" }}
                {%- endif %}
            {%- else %}
                {{- " " + message["content"] + eos_token}}
            {%- endif %}
        {%- endfor %}
        """,
        "<s>[INST] Hi[/INST] Hello!</s>[INST]  Be brief. \n\nBye[/INST]")]
    [InlineData(  // Falcon
        """
        {% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{% if message['role'] == 'system' %}{{ message['content'].strip() }}{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'].strip().replace('\r\n', '\n').replace('\n\n', '\n') }}{% elif message['role'] == 'assistant' %}{{ 'Falcon: ' + message['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\nFalcon:' }}{% endif %}
        """,
        "Be brief.\nUser: Hi\nFalcon: Hello!\nUser: Bye\nFalcon:")]
    public void Chat_templates_render_prompts(string template, string expected)
    {
        var variables = new Dictionary<string, object?>
        {
            ["messages"] = JsonDocument.Parse(Conversation).RootElement,
            ["add_generation_prompt"] = true,
            ["bos_token"] = "<s>",
            ["eos_token"] = "</s>",
        };
        Assert.Equal(expected, new JinjaTemplate(template).Render(variables, new MorningTime()));
    }

    [Theory]
    [InlineData("{{ raise_exception('roles must alternate') }}", "roles must alternate")]
    [InlineData("a\nb {{ x ", "'}}' is missing (line 2, column 3)")]
    [InlineData("{% if x %}", "'{% endif %}' is missing")]
    [InlineData("{% frob %}", "unknown statement 'frob' (line 1, column 4)")]
    [InlineData("{{ 1 | frob }}", "there is no filter 'frob' (line 1, column 8)")]
    [InlineData("{{ 1 is frob }}", "there is no test 'frob'")]
    [InlineData("{{ 'a' + 1 }}", "'+' is not supported between str and int")]
    [InlineData("{{ a.b.c }}", "'a' is undefined")]
    [InlineData("{{ 1 // 0 }}", "Division by zero")]
    [InlineData("{{ [1] | selectattr | list }}", "name of the attribute is missing")]
    [InlineData("{{ 'x'.__class__() }}", "The attribute '__class__' of a str is not accessible to templates")]
    [InlineData("{{ ''.__class__.__mro__ }}", "The attribute '__class__' of a str is not accessible to templates")]
    [InlineData("{{ 'unended }}", "the closing quote of a string is missing")]
    [InlineData("{{ ( }}", "'}' is unexpected (line 1, column 6)")]
    [InlineData("{{ () + }}", "an expression is expected")]
    [InlineData("{% for i in range(1000000000) %}{% endfor %}", "A range may have at most 100000 numbers; this one has 1000000000")]
    [InlineData("{% for i in range(20000) %}{% for j in range(20000) %}{% endfor %}{% endfor %}", "steps; it was stopped")]
    [InlineData("{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "it was stopped")]
    [InlineData("{{ 'a' * 100000000000 }}", "it was stopped")]
    [InlineData("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "more than 250 deep")]
    public void Errors_name_the_cause(string template, string expected)
    {
        var e = Assert.Throws<TemplateException>(() => new JinjaTemplate(template).Render([]));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("((((", 5000)]
    [InlineData("{% if x %}", 5000)]
    [InlineData("[-", 5000)]
    public void Deep_nesting_is_an_error_not_a_crash(string piece, int times)
    {
        string text = string.Concat(Enumerable.Repeat(piece, times));
        Assert.Throws<TemplateException>(() => new JinjaTemplate(piece[0] == '{' ? text : "{{ " + text + " }}"));
    }

    [Fact]
    public void Missing_tools_and_documents_are_none() =>
        Assert.Equal("TrueTruenull", System.Text.Encoding.UTF8.GetString(new LLamaTemplate("{{ tools is none }}{{ documents is none }}{{ tools | tojson }}").Add("user", "Hi").Apply()));

    private sealed class MorningTime : TimeProvider
    {
        public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

        public override DateTimeOffset GetUtcNow() => new(2026, 3, 9, 7, 5, 0, TimeSpan.Zero);
    }
}
