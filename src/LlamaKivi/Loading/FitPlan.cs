namespace LlamaKivi.Common;

/// <summary>Layers on the GPU, context size in tokens and number of sequences.</summary>
internal sealed record FitChoice(int Layers, uint Context, uint Sequences);

/// <summary>Chooses what fits in memory. A pure function of sizes.</summary>
/// <param name="bytes">Bytes that a choice needs: GPU memory if any layer is on the GPU, otherwise host memory. Must grow with layers, context and sequences.</param>
/// <param name="deviceLimit">Usable GPU memory in bytes.</param>
/// <param name="hostLimit">Usable host memory in bytes.</param>
internal sealed class FitPlan(Func<FitChoice, long> bytes, long deviceLimit, long hostLimit)
{
    /// <summary>Granularity of a reduced context, in tokens.</summary>
    public const uint Step = 256;

    /// <summary>A default context shrinks to this size before layers leave the GPU, because a layer on the CPU slows every token.</summary>
    public const uint LeastContext = 4096;

    /// <summary>The choice nearest to the wanted one; null: one sequence with a context of <see cref="Step"/> tokens does not fit.</summary>
    /// <param name="wanted">All layers that may be on the GPU, the greatest context and all sequences.</param>
    /// <param name="choosesLayers">Whether fewer layers may be on the GPU. If not, the context shrinks instead, and then the number of sequences.</param>
    /// <param name="choosesContext">Whether the context is a default, which shrinks before layers leave the GPU.</param>
    public FitChoice? Choose(FitChoice wanted, bool choosesLayers, bool choosesContext)
    {
        if (Fits(wanted))
        {
            return wanted;
        }

        if (wanted.Layers == 0 || !choosesLayers)
        {
            return Reduced(wanted);
        }

        FitChoice least = wanted with { Context = choosesContext ? Math.Min(LeastContext, wanted.Context) : wanted.Context };
        int layers = (int)Largest((uint)wanted.Layers, n => Fits(least with { Layers = (int)n }));
        if (layers == 0)
        {
            FitChoice all = wanted with { Layers = 0 };
            FitChoice? cpu = Fits(all) ? all : Reduced(all);

            // Some layers may fit with the context that host memory holds.
            return cpu is null ? null : cpu with { Layers = (int)Largest((uint)wanted.Layers, n => Fits(cpu with { Layers = (int)n })) };
        }

        // The rest of the memory is for the context.
        uint steps = Largest((wanted.Context - least.Context) / Step, n => Fits(least with { Layers = layers, Context = least.Context + n * Step }));
        return least with { Layers = layers, Context = least.Context + steps * Step };
    }

    private bool Fits(FitChoice choice) => bytes(choice) <= (choice.Layers != 0 ? deviceLimit : hostLimit);

    // The largest context that fits with all sequences; if none does, the most sequences that fit with one step.
    private FitChoice? Reduced(FitChoice wanted)
    {
        uint steps = Largest((wanted.Context - 1) / Step, n => Fits(wanted with { Context = n * Step }));
        if (steps > 0)
        {
            return wanted with { Context = steps * Step };
        }

        FitChoice least = wanted with { Context = Math.Min(Step, wanted.Context) };
        uint sequences = Largest(wanted.Sequences, n => Fits(least with { Sequences = n }));
        return sequences > 0 ? least with { Sequences = sequences } : null;
    }

    // Largest n in 1..most that fits, by bisection; 0 if none.
    private static uint Largest(uint most, Func<uint, bool> fits)
    {
        uint low = 0;
        while (low < most)
        {
            uint middle = low + (most - low + 1) / 2;
            (low, most) = fits(middle) ? (middle, most) : (low, middle - 1);
        }

        return low;
    }
}
