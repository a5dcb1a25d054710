using System.Globalization;
using System.Numerics;

namespace LlamaKivi.Sampling.Grammars.Automata;

/// <summary>A bound of numbers.</summary>
/// <param name="Value">The bound's number.</param>
/// <param name="IsExclusive">Whether the bound itself is excluded.</param>
internal readonly record struct NumberBound(Decimals Value, bool IsExclusive);

/// <summary>Automata of numbers between bounds, in decimal notation without an exponent. Each digit is compared with the digits of the bounds.</summary>
internal static class NumberAutomaton
{
    private enum Stage : byte
    {
        Start,
        Sign,
        Zero,
        Whole,
        Point,
        Fraction,
    }

    /// <summary>Builds the automaton of the numbers between two bounds.</summary>
    /// <param name="low">The lower bound.</param>
    /// <param name="high">The upper bound.</param>
    /// <param name="fraction">Maximum number of decimals.</param>
    /// <param name="multiple">Divisor of the number times ten to the power of <paramref name="fraction"/>.</param>
    /// <returns>The automaton; null: too many states.</returns>
    public static Automaton? Between(NumberBound low, NumberBound high, int fraction, BigInteger multiple)
    {
        // [sign]: bounds of the magnitude
        Side?[] sides =
        [
            high.Value.Sign < 0 ? null : new Side(new Digits(low), new Digits(high)),
            low.Value.Sign >= 0 ? null : new Side(new Digits(high with { Value = high.Value.Negated }), new Digits(low with { Value = low.Value.Negated })),
        ];
        return Automaton.Explore(
            new State(Stage.Start, false, 0, 0, 0, 0, new Remainder(BigInteger.Zero, 0)),
            state => Edges(state, sides, fraction, multiple),
            state => Accepts(state, sides, fraction, multiple));
    }

    private static IEnumerable<(int, int, State)> Edges(State state, Side?[] sides, int fraction, BigInteger multiple)
    {
        if (state.Stage == Stage.Start && sides[1] is not null)
        {
            yield return ('-', '-', state with { Stage = Stage.Sign, IsNegative = true });
        }

        if (sides[state.IsNegative ? 1 : 0] is not { } side)
        {
            yield break;
        }

        if (state.Stage is Stage.Zero or Stage.Whole && fraction > 0)
        {
            yield return ('.', '.', state with { Stage = Stage.Point });
        }

        bool isFraction = state.Stage is Stage.Point or Stage.Fraction;
        if (state.Stage == Stage.Zero || (isFraction ? state.Fraction == fraction : state.Whole == side.High.Whole.Length))
        {
            yield break;
        }

        for (int digit = 0; digit < 10; digit++)
        {
            State next = state with
            {
                Stage = isFraction ? Stage.Fraction : digit == 0 && state.Whole == 0 ? Stage.Zero : Stage.Whole,
                Whole = isFraction ? state.Whole : state.Whole + 1,
                Fraction = isFraction ? state.Fraction + 1 : 0,
                Low = Compare(state.Low, side.Low, isFraction, isFraction ? state.Fraction : state.Whole, digit),
                High = Compare(state.High, side.High, isFraction, isFraction ? state.Fraction : state.Whole, digit),
                Rest = fraction > 0 ? new Remainder((state.Rest.Value * 10 + digit) % multiple, 0) : state.Rest.Next(digit, multiple),
            };
            if (!isFraction || !IsAbove(next, side))
            {
                yield return ('0' + digit, '0' + digit, isFraction ? Forget(next, side) : next);
            }
        }
    }

    // After the decimal point, earlier digits no longer matter if the comparison is decided.
    private static State Forget(State state, Side side)
    {
        int low = Total(state.Low, state.Whole, side.Low);
        int high = Total(state.High, state.Whole, side.High);
        return low != 0 && high != 0 ? state with { Whole = -1, Low = low, High = high } : state;
    }

    private static bool IsAbove(State state, Side side) => Total(state.High, state.Whole, side.High) > 0;

    private static int Compare(int before, Digits bound, bool isFraction, int at, int digit)
    {
        string digits = isFraction ? bound.Fraction : bound.Whole;
        return before != 0 ? before : digit.CompareTo(at < digits.Length ? digits[at] - '0' : 0);
    }

    // Compares the digits so far with a bound. Whole -1: already decided.
    private static int Total(int compared, int whole, Digits bound) =>
        whole < 0 || whole == bound.Whole.Length ? compared : whole.CompareTo(bound.Whole.Length);

    private static bool Accepts(State state, Side?[] sides, int fraction, BigInteger multiple)
    {
        if (state.Stage is Stage.Start or Stage.Sign or Stage.Point || (state.Stage == Stage.Zero && state.IsNegative)
            || state.Rest.Digits > 0 || state.Rest.Value * BigInteger.Pow(10, fraction - state.Fraction) % multiple != 0)
        {
            return false;
        }

        Side side = sides[state.IsNegative ? 1 : 0]!;
        int low = Total(state.Low, state.Whole, side.Low);
        int high = Total(state.High, state.Whole, side.High);
        low = low == 0 && side.Low.HasFraction(state.Fraction) ? -1 : low;
        high = high == 0 && side.High.HasFraction(state.Fraction) ? -1 : high;
        return (low > 0 || (low == 0 && !side.Low.IsExclusive)) && (high < 0 || (high == 0 && !side.High.IsExclusive));
    }

    /// <param name="Stage">The last part of the number.</param>
    /// <param name="IsNegative">Whether the number has a minus sign.</param>
    /// <param name="Whole">Number of digits before the decimal point.</param>
    /// <param name="Fraction">Number of decimals.</param>
    /// <param name="Low">Comparison with the same number of digits of the lower bound.</param>
    /// <param name="High">Comparison with the same number of digits of the upper bound.</param>
    /// <param name="Rest">The digits as a number, modulo the divisor.</param>
    private readonly record struct State(Stage Stage, bool IsNegative, int Whole, int Fraction, int Low, int High, Remainder Rest);

    /// <summary>The remainder of an integer's digits, reduced as far as it matters when a minimum number of digits follows.</summary>
    private readonly record struct Remainder(BigInteger Value, int Digits)
    {
        public Remainder Next(int digit, BigInteger multiple)
        {
            if (multiple.IsOne)
            {
                return this;
            }

            // The minimum number of further digits with which the number can become a multiple; the part that those digits shift out does not matter before.
            BigInteger value = (Value * 10 + digit) % multiple;
            int digits = Math.Max(Digits - 1, 0);
            for (var power = BigInteger.Pow(10, digits); ; power *= 10, digits++)
            {
                BigInteger missing = (multiple - value * power % multiple) % multiple;
                if (missing < power)
                {
                    return new Remainder(value % (multiple / BigInteger.GreatestCommonDivisor(multiple, power)), digits);
                }
            }
        }
    }


    /// <summary>Bounds of the magnitude for one sign.</summary>
    private sealed record Side(Digits Low, Digits High);

    /// <summary>The digits of a bound; a negative bound counts as zero.</summary>
    private sealed class Digits
    {
        public Digits(NumberBound bound)
        {
            Decimals value = bound.Value.Sign < 0 ? Decimals.Zero : bound.Value;
            var whole = BigInteger.DivRem(value.Value, BigInteger.Pow(10, value.Scale), out BigInteger rest);
            Whole = whole.ToString(CultureInfo.InvariantCulture);
            Fraction = rest.IsZero ? "" : rest.ToString(CultureInfo.InvariantCulture).PadLeft(value.Scale, '0').TrimEnd('0');
            IsExclusive = bound.Value.Sign >= 0 && bound.IsExclusive;
        }

        public string Whole { get; }

        public string Fraction { get; }

        public bool IsExclusive { get; }

        public bool HasFraction(int from) => Fraction.Length > from;
    }
}
