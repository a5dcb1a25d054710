using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Templates;

namespace LlamaKivi;

// LLamaSharp's constructor, which takes its view of a model.
public partial class LLamaTemplate
{
    /// <summary>Takes the template of a model's file.</summary>
    /// <param name="model">The model.</param>
    /// <param name="name">A template other than the default one, such as "tool_use"; null: the default.</param>
    /// <param name="strict">True: the template must be there. False: where there is none of the name, the default takes its place, and where there is no default, chatml.</param>
    /// <exception cref="TemplateNotFoundException">The file has no template, or none of the name.</exception>
    /// <exception cref="TemplateException">The template is not valid.</exception>
    public LLamaTemplate(SafeLlamaModelHandle model, string? name = null, bool strict = true)
        : this((model ?? throw new ArgumentNullException(nameof(model))).Weights, name, strict)
    {
    }
}
