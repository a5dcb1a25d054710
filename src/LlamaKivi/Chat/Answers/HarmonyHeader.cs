namespace LlamaKivi;

/// <summary>The header of a message in the Harmony format: <c>&lt;|channel|&gt;analysis&lt;|message|&gt;</c>, with the recipient of the message.</summary>
internal readonly record struct HarmonyHeader(CallRead.Outcome Result, int End, string Channel, string? Recipient)
{
    public const string Start = "<|start|>";
    public const string ChannelMark = "<|channel|>";
    public const string Message = "<|message|>";
    public const string EndMark = "<|end|>";
    public const string Constrain = "<|constrain|>";

    private const int MaxLength = 200;
    private const string To = "to=";
    private const string ToFunctions = To + Functions;
    private const string Functions = "functions.";

    /// <summary>Marks that end a message and are not part of its text.</summary>
    public static readonly string[] Ends = [EndMark, "<|call|>", "<|return|>"];

    public static readonly string[] Marks = [Start, ChannelMark, Message, Constrain, .. Ends];

    /// <summary>Reads the header at a position.</summary>
    /// <param name="text">The text.</param>
    /// <param name="at">The position.</param>
    /// <param name="isBegun">Whether the prompt ends within the header, after the role: the recipient may come next.</param>
    public static HarmonyHeader Read(HeldText text, int at, bool isBegun)
    {
        bool? start = text.StandsAt(at, Start);
        bool? channel = text.StandsAt(at, ChannelMark);
        bool? recipient = isBegun ? text.StandsAt(at, " " + To) : false;
        if (start is false && channel is false && recipient is false)
        {
            return default;
        }

        int message = text.Find(Message, at);
        int length = (message < 0 ? text.Length : message) - at;
        if (message < 0 || length > MaxLength)
        {
            return length > MaxLength || text.IsFinal ? default : new HarmonyHeader(CallRead.Outcome.Unknown, 0, "", null);
        }

        string header = text.Text[at..message].ToString();
        return new HarmonyHeader(CallRead.Outcome.Found, message + Message.Length, After(header, ChannelMark) ?? "", Name(After(header, To)));
    }

    /// <summary>Where the name of the function that a header at a place addresses begins; -1: it addresses none so far.</summary>
    public static int FindFunction(HeldText text, int at)
    {
        int message = text.Find(Message, at);
        int to = text.Find(ToFunctions, at);
        return to < 0 || (message >= 0 && message < to) ? -1 : to + ToFunctions.Length;
    }

    private static string? Name(string? recipient) =>
        recipient is null ? null : recipient.StartsWith(Functions, StringComparison.Ordinal) ? recipient[Functions.Length..] : recipient;

    // The word after a mark.
    private static string? After(string header, string mark)
    {
        int start = header.IndexOf(mark, StringComparison.Ordinal);
        if (start < 0)
        {
            return null;
        }

        start += mark.Length;
        int end = header.AsSpan(start).IndexOfAny(" <\n");
        return end < 0 ? header[start..] : header[start..(start + end)];
    }
}
