namespace LlamaKivi.Sampling.Grammars;

/// <summary>A part of a rule, over bytes.</summary>
/// <param name="Size">Nodes of the automaton that it compiles to, saturating.</param>
internal abstract record Expression(int Size)
{
    public static Expression Empty { get; } = new Sequence([], 0);

    protected static int Add(int a, int b) => (int)Math.Min((long)a + b, int.MaxValue);

    /// <summary>One byte of a set.</summary>
    public sealed record Bytes(int Set) : Expression(1);

    /// <summary>Another rule.</summary>
    public sealed record Reference(int Rule) : Expression(1);

    /// <summary>A sequence of items.</summary>
    public sealed record Sequence(Expression[] Items, int Size) : Expression(Size)
    {
        public static Expression Of(IReadOnlyList<Expression> items) =>
            items.Count == 1 ? items[0] : new Sequence([.. items], items.Aggregate(0, (sum, item) => Add(sum, item.Size)));
    }

    /// <summary>One of several options.</summary>
    public sealed record Choice(Expression[] Options, int Size) : Expression(Size)
    {
        public static Expression Of(IReadOnlyList<Expression> options) =>
            options.Count == 1 ? options[0] : new Choice([.. options], options.Aggregate(1, (sum, option) => Add(sum, option.Size)));
    }

    /// <summary>A repeated item. Maximum <see cref="Unbounded"/>: no limit.</summary>
    public sealed record Repeat(Expression Item, int Least, int Most, int Size) : Expression(Size)
    {
        public const int Unbounded = int.MaxValue;

        // Copies of the item up to this size are cheaper than a counter.
        private const int MaxCopied = 32;

        /// <summary>Whether the repetition is counted at match time instead of being expanded.</summary>
        public bool IsCounted => NodesOf(Item, Least, Most) is null;

        public static Expression Of(Expression item, int least, int most)
        {
            if (most == 0 || item.Size == 0)
            {
                return Empty;
            }

            if (least == 1 && most == 1)
            {
                return item;
            }

            return item is Repeat inner && Merge(inner, least, most) is var (a, b)
                ? Of(inner.Item, a, b)
                : new Repeat(item, least, most, NodesOf(item, least, most) ?? Add(item.Size, 1));
        }

        // (x{a,b}){c,d} equals x{a*c,b*d} if the ranges a*k to b*k, k = c to d, leave no gap. A gap would be between c and c + 1 first.
        private static (int Least, int Most)? Merge(Repeat inner, int least, int most)
        {
            bool gapless = least == most || (long)(least + 1) * inner.Least <= (inner.Most == Unbounded ? least == 0 ? 1 : long.MaxValue : (long)least * inner.Most + 1);
            long low = (long)inner.Least * least;
            long high = inner.Most == Unbounded || most == Unbounded ? Unbounded : (long)inner.Most * most;
            return gapless && low < Unbounded && (high <= Unbounded) ? ((int)low, (int)high) : null;
        }

        private static int? NodesOf(Expression item, int least, int most)
        {
            long copies = Math.Max(most == Unbounded ? least : most, 1);
            long size = copies * (item.Size + 1);
            return copies == 1 || size <= MaxCopied ? (int)Math.Min(size, int.MaxValue) : null;
        }
    }
}
