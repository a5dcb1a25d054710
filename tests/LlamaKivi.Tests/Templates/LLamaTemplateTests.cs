using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;

namespace LlamaKivi.Tests;

/// <summary>Templates of models' files.</summary>
public sealed class LLamaTemplateTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    [Fact]
    public void A_model_without_a_template_is_an_error_or_gets_chatml()
    {
        var error = Assert.Throws<TemplateNotFoundException>(() => new LLamaTemplate(model.Weights));
        Assert.Contains("no chat template (tokenizer.chat_template)", error.Message, StringComparison.Ordinal);
        error = Assert.Throws<TemplateNotFoundException>(() => new LLamaTemplate(model.Weights.NativeHandle, "tool_use"));
        Assert.Contains("tokenizer.chat_template.tool_use", error.Message, StringComparison.Ordinal);
        foreach (string? name in new[] { null, "tool_use" })
        {
            Assert.Throws<TemplateNotFoundException>(() => model.Weights.NativeHandle.GetTemplate(name));
            Assert.Null(model.Weights.NativeHandle.GetTemplate(name, strict: false));
            var template = new LLamaTemplate(model.Weights.NativeHandle, name, strict: false);
            Assert.Equal("<|im_start|>user\nx<|im_end|>\n", Encoding.UTF8.GetString(template.Add("user", "x").Apply()));
        }
    }

    [Fact]
    public void A_models_own_template_is_evaluated()
    {
        string? path = Environment.GetEnvironmentVariable("LLAMA_KIVI_SMOLLM2");
        Assert.SkipUnless(File.Exists(path), "LLAMA_KIVI_SMOLLM2 does not name smollm2-135m-instruct-q4_1.gguf");
        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(path!));
        Assert.StartsWith(
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM", Encoding.UTF8.GetString(new LLamaTemplate(weights).Add("user", "x").Apply()), StringComparison.Ordinal);
        Assert.Throws<TemplateNotFoundException>(() => new LLamaTemplate(weights.NativeHandle, "nope"));
        Assert.Equal(new LLamaTemplate(weights).Add("user", "x").Apply(), new LLamaTemplate(weights.NativeHandle, "nope", strict: false).Add("user", "x").Apply());
    }
}
