namespace LlamaKivi.Sampling.Grammars;

/// <summary>Rules ready to follow a text: sets of bytes and references, flat.</summary>
internal sealed class CompiledGrammar
{
    // [position]: the symbols of all alternatives one behind the other, each alternative closed by End.
    private readonly Symbol[] _symbols;
    private readonly int[][] _starts;  // [rule][alternative]: its first position
    private readonly UInt256[] _sets;

    public CompiledGrammar(Symbol[][][] rules, int root, UInt256[] sets)
    {
        Root = root;
        _sets = sets;
        var symbols = new List<Symbol>();
        _starts = new int[rules.Length][];
        for (int rule = 0; rule < rules.Length; rule++)
        {
            _starts[rule] = new int[rules[rule].Length];
            for (int i = 0; i < rules[rule].Length; i++)
            {
                _starts[rule][i] = symbols.Count;
                symbols.AddRange(rules[rule][i]);
                symbols.Add(End);
            }
        }

        _symbols = [.. symbols];
    }

    public static Symbol End { get; } = new(false, -1);

    public int Root { get; }

    public Symbol At(int position) => _symbols[position];

    public ReadOnlySpan<int> Starts(int rule) => _starts[rule];

    public bool Matches(int position, byte value) => _sets[_symbols[position].Index].Contains(value);
}

/// <summary>
/// The states a text can be in under a grammar, found as they are needed. A state is the set of positions before a byte that the text may be at, each with
/// what follows once its rule is done; equal ones are one object, so that steps from a state are computed once.
/// </summary>
internal sealed class GrammarStates
{
    private const int MaxStates = 20_000;
    private const int MaxPlaces = 10_000;  // of one state

    private readonly CompiledGrammar _grammar;
    private readonly Dictionary<(int Position, int Next), int> _placeIndex = [];
    private readonly List<(int Position, int Next)> _places = [];  // a place and the place to go on at when its rule is done; -1: the end
    private readonly Dictionary<string, int> _stateIndex = [];
    private readonly List<State> _states = [];

    public GrammarStates(CompiledGrammar grammar)
    {
        _grammar = grammar;
        Clear();
    }

    public State Start { get; private set; } = null!;

    /// <summary>The state after a byte; null if the grammar does not allow it.</summary>
    public State? Next(State state, byte value)
    {
        ref int known = ref state.After[value];
        if (known == State.NotComputed)
        {
            var places = new SortedSet<int>();
            bool ends = false;
            foreach (int place in state.Places)
            {
                (int position, int next) = _places[place];
                if (_grammar.Matches(position, value))
                {
                    ends |= Open(position + 1, next, places, []);
                }
            }

            known = places.Count == 0 && !ends ? State.None : StateOf(places, ends).Index;
        }

        return known == State.None ? null : _states[known];
    }

    /// <summary>Forgets states if there are many. States that were handed out are no longer of use but for the one returned, which stands for the one given.</summary>
    public State Trim(State keep)
    {
        if (_states.Count < MaxStates)
        {
            return keep;
        }

        // The places of the kept state, from the end inward, again.
        List<(int, int)> old = [.. _places];
        int[] kept = [.. keep.Places];
        bool ends = keep.CanEnd;
        Clear();
        var places = new SortedSet<int>(kept.Select(place => Copy(place, old)));
        return StateOf(places, ends);
    }

    private int Copy(int place, List<(int Position, int Next)> old)
    {
        var chain = new Stack<int>();
        for (; place >= 0; place = old[place].Next)
        {
            chain.Push(old[place].Position);
        }

        int next = -1;
        foreach (int position in chain)
        {
            next = PlaceOf(position, next);
        }

        return next;
    }

    private void Clear()
    {
        _placeIndex.Clear();
        _places.Clear();
        _stateIndex.Clear();
        _states.Clear();
        var places = new SortedSet<int>();
        bool ends = false;
        foreach (int start in _grammar.Starts(_grammar.Root))
        {
            ends |= Open(start, -1, places, []);
        }

        Start = StateOf(places, ends);
    }

    // Adds the places before a byte that can be reached from a position without one; whether the end can be.
    private bool Open(int position, int next, SortedSet<int> places, HashSet<(int, int)> seen)
    {
        bool ends = false;
        var open = new Stack<(int Position, int Next)>();
        open.Push((position, next));
        while (open.TryPop(out (int Position, int Next) at))
        {
            if (!seen.Add(at))
            {
                continue;
            }

            Symbol symbol = _grammar.At(at.Position);
            if (symbol == CompiledGrammar.End)
            {
                if (at.Next < 0)
                {
                    ends = true;
                }
                else
                {
                    open.Push(_places[at.Next]);
                }
            }
            else if (symbol.IsRule)
            {
                // A rule at the end of its alternative needs no return: loops do not grow.
                int after = _grammar.At(at.Position + 1) == CompiledGrammar.End ? at.Next : PlaceOf(at.Position + 1, at.Next);
                foreach (int start in _grammar.Starts(symbol.Index))
                {
                    open.Push((start, after));
                }
            }
            else
            {
                places.Add(PlaceOf(at.Position, at.Next));
                if (places.Count > MaxPlaces)
                {
                    throw new GrammarException($"The grammar is too ambiguous: a text can be at more than {MaxPlaces} places of it at a time.");
                }
            }
        }

        return ends;
    }

    private int PlaceOf(int position, int next)
    {
        if (!_placeIndex.TryGetValue((position, next), out int place))
        {
            place = _places.Count;
            _places.Add((position, next));
            _placeIndex.Add((position, next), place);
        }

        return place;
    }

    private State StateOf(SortedSet<int> places, bool ends)
    {
        string key = string.Join(',', places) + (ends ? "." : "");
        if (!_stateIndex.TryGetValue(key, out int index))
        {
            index = _states.Count;
            _states.Add(new State(index, [.. places], ends));
            _stateIndex.Add(key, index);
        }

        return _states[index];
    }

    internal sealed class State
    {
        public const int NotComputed = -2;
        public const int None = -1;

        public State(int index, int[] places, bool canEnd)
        {
            Index = index;
            Places = places;
            CanEnd = canEnd;
            Array.Fill(After, NotComputed);
        }

        public int Index { get; }

        public int[] Places { get; }

        /// <summary>Whether the text may end here.</summary>
        public bool CanEnd { get; }

        /// <summary>[byte]: the state after it.</summary>
        public int[] After { get; } = new int[256];

        /// <summary>Tokens the grammar allows here, a bit each; null: not computed.</summary>
        public ulong[]? Allowed { get; set; }
    }
}
