namespace LlamaKivi;

/// <summary>Watches a text that comes in pieces for strings that it may end with.</summary>
/// <remarks>It looks at the end of the text alone, as LLamaSharp's does. <see cref="StopStrings"/> also finds a string that a piece goes beyond.</remarks>
public sealed class AntipromptProcessor
{
    private const int Kept = 128;  // characters, for antiprompts that are added later

    private readonly List<string> _antiprompts = [];
    private StopStrings _stops = new([]);
    private string _end = "";      // of the text so far: as much as the longest antiprompt, or more

    /// <summary>Creates a processor.</summary>
    public AntipromptProcessor(IEnumerable<string>? antiprompts = null)
    {
        if (antiprompts is not null)
        {
            SetAntiprompts(antiprompts);
        }
    }

    /// <summary>Adds a string to watch for. The empty one is left out: every text ends with it.</summary>
    public void AddAntiprompt(string antiprompt)
    {
        ArgumentNullException.ThrowIfNull(antiprompt);
        _antiprompts.Add(antiprompt);
        _stops = new StopStrings(_antiprompts);
    }

    /// <summary>Replaces the strings to watch for, and forgets the text seen.</summary>
    public void SetAntiprompts(IEnumerable<string> antiprompts)
    {
        ArgumentNullException.ThrowIfNull(antiprompts);
        _antiprompts.Clear();
        _stops = new StopStrings([]);
        _end = "";
        foreach (string antiprompt in antiprompts)
        {
            AddAntiprompt(antiprompt);
        }
    }

    /// <summary>Appends a piece of text.</summary>
    /// <returns>Whether the text so far ends with an antiprompt. Case matters. One that the piece goes beyond does not count.</returns>
    public bool Add(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        _end += text;
        _end = _end[Math.Max(0, _end.Length - Math.Max(_stops.Longest, Kept))..];
        return _stops.IsAtEnd(_end);
    }
}
