using LlamaKivi.Exceptions;

namespace LlamaKivi.Templates;

/// <summary>A template is not valid, refuses what it is given, or does more than it may.</summary>
public sealed class TemplateException(string message) : RuntimeError(message);
