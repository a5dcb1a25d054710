namespace LlamaKivi;

/// <summary>Watches a text that comes in pieces for strings that it may end with.</summary>
public sealed class AntipromptProcessor
{
    private const int Kept = 128;  // characters, for antiprompts that are added later

    private readonly List<string> _antiprompts = [];
    private string _end = "";      // of the text so far: as much as the longest antiprompt, or more
    private int _longest;

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
        if (antiprompt.Length == 0)
        {
            return;
        }

        _antiprompts.Add(antiprompt);
        _longest = Math.Max(_longest, antiprompt.Length);
    }

    /// <summary>Replaces the strings to watch for, and forgets the text seen.</summary>
    public void SetAntiprompts(IEnumerable<string> antiprompts)
    {
        ArgumentNullException.ThrowIfNull(antiprompts);
        _antiprompts.Clear();
        _longest = 0;
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
        _end = _end[Math.Max(0, _end.Length - Math.Max(_longest, Kept))..];
        return _antiprompts.Exists(antiprompt => _end.EndsWith(antiprompt, StringComparison.Ordinal));
    }
}
