using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates;

/// <summary>What one rendering may spend: steps, characters of a text, nesting. A template comes with a model's file, and nobody has read it.</summary>
/// <remarks>
/// Every operation pays for what it does before it does it, so that memory is bounded as time is: a step for an item, one for <see cref="PerStep"/> characters or
/// items that are only copied or compared.
/// </remarks>
internal sealed class JinjaBudget(CancellationToken cancellationToken)
{
    public const int MaxSteps = 2_000_000;
    public const int MaxCharacters = 16 << 20;

    // Of statements and expressions that are being evaluated, and of values that are being gone through. A level takes up to half a kilobyte of the stack.
    public const int MaxNesting = 1000;

    private const int PerStep = 64;

    private long _steps;
    private int _nesting;

    public void Step(long count = 1)
    {
        long before = _steps;
        _steps += count;
        if (_steps > MaxSteps)
        {
            throw new TemplateException($"The template takes more than {MaxSteps} steps; it was stopped.");
        }

        if (before / 1024 != _steps / 1024)
        {
            cancellationToken.ThrowIfCancellationRequested();
        }
    }

    /// <summary>Pays for characters or items that are copied, compared or looked at as one run.</summary>
    public void Run(long length) => Step(length / PerStep);

    /// <summary>Pays for what an operation reads: the length of a text, list or dictionary.</summary>
    public void Read(object? value) => Run(value switch
    {
        string text => text.Length,
        JinjaList list => list.Items.Count,
        JinjaDict dict => dict.Count,
        _ => 0,
    });

    /// <summary>Pays for what a filter or a method reads.</summary>
    public void Read(object? value, object?[] args, IReadOnlyDictionary<string, object?> named)
    {
        Read(value);
        Run(args.Length);
        Array.ForEach(args, Read);
        foreach ((_, object? argument) in named)
        {
            Read(argument);
        }
    }

    /// <summary>Refuses a text that would be too long, before there is memory for it.</summary>
    public static void Room(long characters)
    {
        if (characters > MaxCharacters)
        {
            throw new TemplateException($"The template makes a text of more than {MaxCharacters} characters; it was stopped.");
        }
    }

    /// <summary>A text that came to be.</summary>
    public string Made(string text)
    {
        Room(text.Length);
        Step(text.Length / PerStep + 1);
        return text;
    }

    /// <summary>One level deeper, in the template or in a value. An exception ends the rendering, so that <see cref="Leave"/> needs no finally.</summary>
    public void Enter()
    {
        if (++_nesting > MaxNesting || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new TemplateException($"The template nests more than {Math.Min(_nesting, MaxNesting)} deep; it was stopped.");
        }
    }

    public void Leave() => _nesting--;
}
