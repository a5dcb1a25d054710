using Microsoft.Extensions.AI;

namespace LlamaKivi;

/// <summary>What stands at a place of an answer.</summary>
internal readonly record struct CallRead
{
    private CallRead(Outcome outcome, int end, FunctionCallContent[] calls, string[] closes) => (Result, End, Calls, Closes) = (outcome, end, calls, closes);

    public enum Outcome
    {
        /// <summary>Text.</summary>
        None,

        /// <summary>More of the answer tells.</summary>
        Unknown,

        /// <summary>What is read there.</summary>
        Found,
    }

    public static CallRead None { get; } = new(Outcome.None, 0, [], []);

    public static CallRead Unknown { get; } = new(Outcome.Unknown, 0, [], []);

    public Outcome Result { get; }

    /// <summary>Where what follows the calls begins.</summary>
    public int End { get; }

    public FunctionCallContent[] Calls { get; }

    /// <summary>Marks that belong to the calls and may follow them, the outer ones first.</summary>
    public string[] Closes { get; }

    public static CallRead Found(int end, FunctionCallContent[] calls, params string[] closes) => new(Outcome.Found, end, calls, closes);

    /// <summary>The read of what more text would complete: nothing, once there is no more.</summary>
    public static CallRead Incomplete(HeldText text) => text.IsFinal ? None : Unknown;
}
