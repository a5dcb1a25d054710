using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Templates;

namespace LlamaKivi;

// LLamaSharp's constructor from a model handle.
public partial class LLamaTemplate
{
    /// <summary>Loads a chat template of the model file.</summary>
    /// <param name="model">The model.</param>
    /// <param name="name">Name of a template, such as "tool_use"; null: the default template.</param>
    /// <param name="strict">Whether a missing template is an error. False: falls back to the default template, then to chatml.</param>
    /// <exception cref="TemplateNotFoundException">The file has no template of this name.</exception>
    /// <exception cref="TemplateException">The template is not valid.</exception>
    public LLamaTemplate(SafeLlamaModelHandle model, string? name = null, bool strict = true)
        : this((model ?? throw new ArgumentNullException(nameof(model))).Weights, name, strict)
    {
    }
}
