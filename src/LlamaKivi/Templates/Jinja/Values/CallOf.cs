namespace LlamaKivi.Templates.Jinja;

/// <summary>Calls of values.</summary>
internal static class CallOf
{
    public static object? Value(Rendering rendering, object? target, CallArguments arguments)
    {
        switch (target)
        {
            case Callable callable:
                return callable.Call(rendering, arguments);
            case LoopContext loop:
                return loop.Recurse(rendering, arguments.Single("loop"));
            case Joiner joiner:
                return arguments.Positional.Length + arguments.Named.Length == 0 ? joiner.Call() : throw new TemplateException("A joiner takes no arguments.");
            case Undefined undefined:
                throw undefined.Error();
            default:
                throw new TemplateException($"A {Types.Name(target)} cannot be called.");
        }
    }
}
