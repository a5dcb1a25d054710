namespace LlamaKivi.Templates;

/// <summary>Chat formats that many models share, for files without a template.</summary>
internal static class CommonTemplates
{
    public static string? Find(string name) => name switch
    {
        "chatml" =>
            "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endfor %}" +
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "llama3" =>
            "{% for m in messages %}{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\n\n' ~ m.content | trim ~ '<|eot_id|>' }}{% endfor %}" +
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "llama2" =>
            "{% set ns = namespace(system='') %}{% for m in messages %}" +
            "{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}" +
            "{% elif m.role == 'user' %}{{ '[INST] ' ~ ns.system ~ m.content ~ ' [/INST]' }}{% set ns.system = '' %}" +
            "{% else %}{{ ' ' ~ m.content ~ ' </s>' }}{% endif %}{% endfor %}",
        "mistral" =>
            "{% set ns = namespace(system='') %}{% for m in messages %}" +
            "{% if m.role == 'system' %}{% set ns.system = m.content ~ '\n\n' %}" +
            "{% elif m.role == 'user' %}{{ '[INST] ' ~ ns.system ~ m.content ~ ' [/INST]' }}{% set ns.system = '' %}" +
            "{% else %}{{ ' ' ~ m.content ~ '</s>' }}{% endif %}{% endfor %}",
        _ => null,
    };
}
