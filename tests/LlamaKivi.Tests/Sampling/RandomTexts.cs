using System.Text;
using LlamaKivi.Sampling;
using LlamaKivi.Sampling.Grammars;

namespace LlamaKivi.Tests.Sampling;

/// <summary>Draws texts of a grammar: each byte is one of those that may come next, then the shortest way to an end.</summary>
internal sealed class RandomTexts
{
    private const int MaxSearch = 200_000;
    private const int Nesting = 40;  // bytes that are worth a level

    private readonly CompiledGrammar _grammar;
    private readonly GrammarStates _states;
    private readonly byte[][] _bytes;  // [class]: its bytes

    public RandomTexts(Grammar grammar)
    {
        _grammar = grammar.Compiled;
        _states = new GrammarStates(_grammar) { MaxSize = long.MaxValue };
        _bytes = [.. Enumerable.Range(0, _grammar.ClassBytes.Length).Select(c => Enumerable.Range(0, 256).Where(value => _grammar.ByteClasses[value] == c).Select(value => (byte)value).ToArray())];
    }

    /// <summary>A text; it may end wherever the grammar allows it, and does so soon after some bytes.</summary>
    public string Next(Random random, int length)
    {
        var text = new List<byte>();
        GrammarState state = _states.Start;
        while (text.Count < length && !(state.CanEnd && random.Next(4) == 0))
        {
            if (Step(state, random) is not var (value, next))
            {
                break;
            }

            text.Add(value);
            state = next;
        }

        Finish(text, state);
        return new UTF8Encoding(false, true).GetString([.. text]);
    }

    // A class of bytes, then a byte: rare ends are as likely as one of many letters.
    private (byte, GrammarState)? Step(GrammarState state, Random random)
    {
        (byte Value, GrammarState Next)[] options = [.. _bytes.Select(bytes => bytes[random.Next(bytes.Length)]).Select(value => (value, _states.Next(state, value)!)).Where(option => option.Item2 is not null)];
        return options.Length == 0 ? null : options[random.Next(options.Length)];
    }

    // Less nested texts first, then shorter ones. Most continuations with white space are useless.
    private void Finish(List<byte> text, GrammarState start)
    {
        var before = new Dictionary<GrammarState, (GrammarState State, byte Value)>(ReferenceEqualityComparer.Instance);
        var open = new PriorityQueue<(GrammarState State, int Length), int>([((start, 0), 0)]);
        GrammarState state = start;
        while (!(state = open.TryDequeue(out (GrammarState State, int Length) next, out _) ? next.State : throw Fail("No end follows")).CanEnd)
        {
            foreach (byte value in _grammar.ClassBytes)
            {
                if (_states.Next(state, value) is { } after && !ReferenceEquals(after, start) && before.TryAdd(after, (state, value)))
                {
                    int depth = after.Places.Length == 0 ? 0 : after.Places.Min(place => place.Frame.Depth);
                    open.Enqueue((after, next.Length + (value is (byte)' ' or (byte)'\t' or (byte)'\n' ? Nesting : 1)), depth * Nesting + next.Length);
                }
            }

            _ = before.Count > MaxSearch ? throw Fail("The end is too far from") : 0;
        }

        var rest = new List<byte>();
        for (; !ReferenceEquals(state, start); state = before[state].State)
        {
            rest.Add(before[state].Value);
        }

        rest.Reverse();
        text.AddRange(rest);

        InvalidOperationException Fail(string what) => new($"{what} '{Encoding.UTF8.GetString([.. text])}'.");
    }
}
