using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>Result of reading a call at a position of an answer.</summary>
internal readonly record struct CallRead
{
    private CallRead(Outcome outcome, int end, FunctionCallContent[] calls, string[] closes) => (Result, End, Calls, Closes) = (outcome, end, calls, closes);

    public enum Outcome
    {
        /// <summary>Not a call.</summary>
        None,

        /// <summary>Needs more of the answer.</summary>
        Unknown,

        /// <summary>One or more calls.</summary>
        Found,
    }

    public static CallRead None { get; } = new(Outcome.None, 0, [], []);

    public static CallRead Unknown { get; } = new(Outcome.Unknown, 0, [], []);

    public Outcome Result { get; }

    /// <summary>Position after the calls.</summary>
    public int End { get; }

    public FunctionCallContent[] Calls { get; }

    /// <summary>Closing marks that may follow the calls, outermost first.</summary>
    public string[] Closes { get; }

    public static CallRead Found(int end, FunctionCallContent[] calls, params string[] closes) => new(Outcome.Found, end, calls, closes);

    /// <summary>The result for an incomplete call: none if the answer has ended, otherwise unknown.</summary>
    public static CallRead Incomplete(HeldText text) => text.IsFinal ? None : Unknown;
}
