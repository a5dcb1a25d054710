using System.Runtime.CompilerServices;

namespace LlamaKivi.Templates.Jinja;

/// <summary>
/// What one rendering may spend: time in steps, memory in characters, nesting. A template comes with a model's file and is untrusted.
/// </summary>
/// <remarks>
/// The allowance grows with the text that the caller gives and with the text that is written, so that a long conversation may take longer than a short one, and an
/// endless loop ends within seconds. Every operation pays before it does its work: a step for an item, one for <see cref="PerStep"/> characters that are copied or compared.
/// </remarks>
internal sealed class Budget
{
    /// <summary>The longest text, in UTF-16 units.</summary>
    public const int MaxCharacters = 16 << 20;

    /// <summary>Depth of statements, expressions and values. A level takes up to half a kilobyte of the stack.</summary>
    public const int MaxNesting = 4000;

    /// <summary>Depth of macro calls and recursive loops.</summary>
    public const int MaxCalls = 250;

    private const long BaseSteps = 4_000_000;
    private const long StepsPerCharacter = 200;
    private const long BaseMemory = 64 << 20;
    private const long MemoryPerCharacter = 512;
    private const long MaxMemory = 384 << 20;  // however long the conversation is: 768 MiB of texts that are all kept
    private const int PerStep = 64;
    private const int ItemSize = 16;  // of memory: an item of a list takes as much as this many characters
    private const int ListSize = 48;  // an empty list, in characters
    private const int DictSize = 128;
    private const int CallSize = 96;  // what a call may give: a generator, a namespace, a boxed number
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

    /// <summary>A text without the stand-ins of <see cref="Provenance"/>, of the same length: the form in which texts are compared and searched.</summary>
    public string Meant(string text) => Provenance is null ? text : Provenance.Meant(text);

    /// <summary>A set of characters with their stand-ins, to look for in a text that may have either.</summary>
    public string MeantOrStandIns(string characters) => Provenance is null ? characters : Provenance.WithStandIns(characters);

    /// <summary>Allows what a text of this length needs: one that the caller gives, or one that was written.</summary>
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

    /// <summary>Pays for characters or items that are copied, compared or searched as one run.</summary>
    public void Run(long length) => Step(length / PerStep);

    /// <summary>Pays for items that a list, tuple or dictionary is made of.</summary>
    public void Items(long count)
    {
        Step(count);
        Take(count * ItemSize);
    }

    /// <summary>Pays for a list or tuple and its items.</summary>
    public void List(long count)
    {
        Items(count);
        Take(ListSize);
    }

    /// <summary>Pays for a dictionary and its keys and values.</summary>
    public void Dict(long count)
    {
        Items(2 * count);
        Take(DictSize);
    }

    /// <summary>Pays for the result of a call or filter.</summary>
    public void Call() => Take(CallSize);

    /// <summary>Pays for what an operation reads: the length of a text, list or dictionary.</summary>
    public void Read(object? value) => Run(value switch
    {
        string text => text.Length,
        Markup markup => markup.Text.Length,
        JinjaList list => list.Items.Count,
        PyTuple tuple => tuple.Items.Length,
        JinjaDict dict => dict.Count,
        _ => 0,
    });

    /// <summary>Pays for a text that was made.</summary>
    public string Made(string text)
    {
        Room(text.Length);
        Step(text.Length / PerStep);
        Take(text.Length);
        return text;
    }

    /// <summary>Refuses a text that would be too long, before there is memory for it.</summary>
    public static void Room(long characters)
    {
        if (characters > MaxCharacters)
        {
            throw new TemplateException($"The template makes a text of more than {MaxCharacters} characters; it was stopped.");
        }
    }

    /// <summary>One level deeper, in the template or in a value. An exception ends the rendering, so that <see cref="Leave"/> needs no finally.</summary>
    public void Enter()
    {
        if ((++_nesting & (CheckStackEvery - 1)) == 0)
        {
            CheckStack();
        }
    }

    public void Leave() => _nesting--;

    /// <summary>One macro call or recursive loop deeper.</summary>
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
            throw new TemplateException($"The template makes more than {_maxMemory} characters of intermediate values; it was stopped.");
        }
    }
}
