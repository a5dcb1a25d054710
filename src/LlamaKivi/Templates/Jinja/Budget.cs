using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates.Jinja;

/// <summary>
/// Limits of one rendering: time in steps, memory in characters, nesting. Templates come from model files and are untrusted.
/// </summary>
/// <remarks>
/// The limits grow with the caller's text and with the output, so that long conversations pass and an
/// endless loop ends within seconds. Every operation is charged before its work: one step per item, and one per <see cref="PerStep"/> characters copied or compared.
/// </remarks>
internal sealed class Budget
{
    /// <summary>Maximum length of a string, in UTF-16 units.</summary>
    public const int MaxCharacters = 16 << 20;

    /// <summary>Maximum depth of statements, expressions and values. A level takes up to 512 bytes of stack.</summary>
    public const int MaxNesting = 4000;

    /// <summary>Maximum depth of macro calls and recursive loops.</summary>
    public const int MaxCalls = 250;

    private const long BaseSteps = 4_000_000;
    private const long StepsPerCharacter = 200;
    private const long BaseMemory = 64 << 20;
    private const long MemoryPerCharacter = 512;
    private const long MaxMemory = 384 << 20;  // however long the conversation is: 768 MiB of texts that are all kept
    private const int PerStep = 64;
    private const int ItemSize = 16;  // characters that a list item counts as
    private const int ListSize = 48;  // the same for an empty list
    private const int DictSize = 128;  // and an empty dictionary
    private const int CallSize = 96;  // and the result of a call: a generator, a namespace, a boxed number
    private const int CheckStackEvery = 8;

    private readonly CancellationToken _cancellationToken;
    private long _maxSteps = BaseSteps;
    private long _maxMemory = BaseMemory;
    private long _steps;
    private long _checkAt = 1024;
    private long _memory;
    private int _nesting;
    private int _calls;

    public Budget(CancellationToken cancellationToken, Provenance? provenance = null)
    {
        _cancellationToken = cancellationToken;
        Provenance = provenance;
        Keys = new KeyComparer(this);
    }

    /// <summary>Tracks text from outside of the template; null: not tracked.</summary>
    public Provenance? Provenance { get; }

    /// <summary>Compares the keys of dictionaries within this budget.</summary>
    public KeyComparer Keys { get; }

    /// <summary>Replaces the stand-ins of <see cref="Provenance"/> by their characters; the length is unchanged. Comparisons and searches use this form.</summary>
    public string Meant(string text) => Provenance is null ? text : Provenance.Meant(text);

    /// <summary>Adds the stand-ins of a set of characters, to search a string that may contain either.</summary>
    public string MeantOrStandIns(string characters) => Provenance is null ? characters : Provenance.WithStandIns(characters);

    /// <summary>Raises the limits for a caller's text or an output of this length.</summary>
    public void Grant(long characters)
    {
        _maxSteps += characters * StepsPerCharacter;
        _maxMemory = Math.Min(_maxMemory + characters * MemoryPerCharacter, MaxMemory);
    }

    public void Step(long count = 1)
    {
        _steps += count;
        if (_steps >= _checkAt)
        {
            Check();
        }
    }

    /// <summary>Charges characters or items that are copied, compared or searched in one run.</summary>
    public void Run(long length) => Step(length / PerStep);

    /// <summary>Charges the items of a new list, tuple or dictionary.</summary>
    public void Items(long count)
    {
        Step(count);
        Take(count * ItemSize);
    }

    /// <summary>Charges a list or tuple and its items.</summary>
    public void List(long count)
    {
        Items(count);
        Take(ListSize);
    }

    /// <summary>Charges a dictionary and its keys and values.</summary>
    public void Dict(long count)
    {
        Items(2 * count);
        Take(DictSize);
    }

    /// <summary>Charges the result of a call or filter.</summary>
    public void Call() => Take(CallSize);

    /// <summary>Charges the length of a string, list or dictionary that an operation reads.</summary>
    public void Read(object? value) => Run(value switch
    {
        string text => text.Length,
        Markup markup => markup.Text.Length,
        JinjaList list => list.Items.Count,
        PyTuple tuple => tuple.Items.Length,
        JinjaDict dict => dict.Count,
        _ => 0,
    });

    /// <summary>Charges a new string.</summary>
    public string Made(string text)
    {
        Room(text.Length);
        Step(text.Length / PerStep);
        Take(text.Length);
        return text;
    }

    /// <summary>Rejects a string that would be too long, before it is allocated.</summary>
    public static void Room(long characters)
    {
        if (characters > MaxCharacters)
        {
            throw new TemplateException($"The template creates a string of more than {MaxCharacters} characters; it was stopped.");
        }
    }

    /// <summary>Enters a level of the template or of a value. An exception ends the rendering, so <see cref="Leave"/> needs no finally.</summary>
    public void Enter()
    {
        if ((++_nesting & (CheckStackEvery - 1)) == 0)
        {
            CheckStack();
        }
    }

    public void Leave() => _nesting--;

    /// <summary>Enters a macro call or recursive loop.</summary>
    public void EnterCall()
    {
        if (++_calls > MaxCalls)
        {
            throw new TemplateException($"The template's calls nest more than {MaxCalls} deep; it was stopped.");
        }
    }

    public void LeaveCall() => _calls--;

    private void CheckStack()
    {
        if (_nesting > MaxNesting || !RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new TemplateException($"The template nests more than {Math.Min(_nesting, MaxNesting)} deep; it was stopped.");
        }
    }

    private void Check()
    {
        _cancellationToken.ThrowIfCancellationRequested();
        if (_steps > _maxSteps)
        {
            throw new TemplateException($"The template takes more than {_maxSteps} steps; it was stopped.");
        }

        _checkAt = Math.Min(_steps + 1024, _maxSteps + 1);
    }

    private void Take(long characters)
    {
        _memory += characters;
        if (_memory > _maxMemory)
        {
            throw new TemplateException($"The template creates more than {_maxMemory} characters of intermediate values; it was stopped.");
        }
    }
}
