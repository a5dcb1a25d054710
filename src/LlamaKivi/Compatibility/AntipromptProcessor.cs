namespace LlamaKivi;

/// <summary>Detects antiprompts at the end of text that arrives in pieces.</summary>
/// <remarks>Only the end of the text is compared, as in LLamaSharp. <see cref="StopStrings"/> also finds a string that is followed by more text in the same piece.</remarks>
public sealed class AntipromptProcessor
{
    private const int Kept = 128;  // characters kept for antiprompts added later

    private readonly List<string> _antiprompts = [];
    private StopStrings _stops = new([]);
    private string _end = "";      // tail of the text, at least as long as the longest antiprompt

    /// <summary>Creates a processor.</summary>
    public AntipromptProcessor(IEnumerable<string>? antiprompts = null)
    {
        if (antiprompts is not null)
        {
            SetAntiprompts(antiprompts);
        }
    }

    /// <summary>Adds an antiprompt. An empty string, which would always match, is ignored.</summary>
    public void AddAntiprompt(string antiprompt)
    {
        ArgumentNullException.ThrowIfNull(antiprompt);
        _antiprompts.Add(antiprompt);
        _stops = new StopStrings(_antiprompts);
    }

    /// <summary>Replaces the antiprompts and clears the text.</summary>
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
    /// <returns>Whether the text now ends with an antiprompt; case-sensitive. An antiprompt followed by more text in the piece does not count.</returns>
    public bool Add(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        _end += text;
        _end = _end[Math.Max(0, _end.Length - Math.Max(_stops.Longest, Kept))..];
        return _stops.IsAtEnd(_end);
    }
}
