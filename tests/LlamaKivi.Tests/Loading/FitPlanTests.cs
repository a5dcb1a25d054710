using LlamaKivi.Common;

namespace LlamaKivi.Tests;

/// <summary>What --fit chooses, by tables of sizes.</summary>
public sealed class FitPlanTests
{
    private const long MiB = 1 << 20;
    private const int Layers = 32;

    // An 8B model in 4 bits: 140 MiB a layer, 500 MiB of outputs, 600 MiB of workspace; per token and layer 4 KiB (f16) or 640 bytes (kivi2), per sequence and layer 300 KiB of rings (kivi2).
    private static long Bytes(FitChoice c, bool isKivi2)
    {
        long layer = 140 * MiB + c.Context * (isKivi2 ? 640L : 4096L) + (isKivi2 ? c.Sequences * 300L * 1024 : 0);
        return c.Layers == 0 ? Layers * layer + 500 * MiB + 100 * MiB : c.Layers * layer + 500 * MiB + 600 * MiB;
    }

    [Theory]
    // All fit.
    [InlineData("kivi2", 8192, 1, true, true, 8000, 64000, 32, 8192, 1)]
    [InlineData("f16", 8192, 1, true, true, 8000, 64000, 32, 8192, 1)]
    // A default context shrinks, down to 4096 tokens, before a layer leaves the GPU.
    [InlineData("f16", 131072, 1, true, true, 8000, 64000, 32, 19200, 1)]
    [InlineData("f16", 131072, 1, true, true, 6100, 64000, 32, 4096, 1)]
    // Some layers fit; what is left of the memory is for the context.
    [InlineData("f16", 131072, 1, true, true, 4000, 64000, 18, 5376, 1)]
    [InlineData("kivi2", 131072, 1, true, true, 4000, 64000, 20, 7680, 1)]
    [InlineData("kivi2", 2048, 1, true, true, 4000, 64000, 20, 2048, 1)]
    // A context that was asked for stays.
    [InlineData("f16", 131072, 1, true, false, 8000, 64000, 10, 131072, 1)]
    [InlineData("kivi2", 131072, 1, true, false, 8000, 64000, 31, 131072, 1)]
    // None fits: the CPU, with the whole context; or with what host memory holds, for which a layer fits on the GPU.
    [InlineData("f16", 8192, 1, true, true, 1200, 64000, 0, 8192, 1)]
    [InlineData("f16", 131072, 1, true, false, 1400, 8000, 1, 23296, 1)]
    // Layers that were asked for stay; the context shrinks, then the sequences.
    [InlineData("f16", 131072, 1, false, true, 8000, 64000, 32, 19200, 1)]
    [InlineData("f16", 131072, 1, false, false, 8000, 64000, 32, 19200, 1)]
    [InlineData("kivi2", 512, 256, false, false, 6000, 64000, 32, 256, 44)]
    // Several sequences: their rings count, so fewer layers fit.
    [InlineData("kivi2", 8192, 256, true, true, 6000, 64000, 22, 8192, 256)]
    [InlineData("kivi2", 8192, 16, true, true, 6000, 64000, 32, 8192, 16)]
    // Nothing fits.
    [InlineData("f16", 8192, 1, false, true, 1200, 64000, -1, 0, 0)]
    [InlineData("f16", 8192, 1, true, true, 1200, 1200, -1, 0, 0)]
    public void The_choice_follows_from_the_sizes(
        string type, uint context, uint sequences, bool choosesLayers, bool choosesContext, long deviceMiB, long hostMiB, int layers, uint chosenContext, uint chosenSequences)
    {
        long Need(FitChoice choice) => Bytes(choice, type == "kivi2");
        var plan = new FitPlan(Need, deviceMiB * MiB, hostMiB * MiB);
        FitChoice? choice = plan.Choose(new FitChoice(Layers, context, sequences), choosesLayers, choosesContext);
        Assert.Equal(layers < 0 ? null : new FitChoice(layers, chosenContext, chosenSequences), choice);
        if (choice is null)
        {
            return;
        }

        // It fits, and one more step or layer would not.
        long limit = (choice.Layers == 0 ? hostMiB : deviceMiB) * MiB;
        Assert.True(Need(choice) <= limit);
        FitChoice longer = choice with { Context = choice.Context + FitPlan.Step };
        Assert.True(choice.Context == context || Need(longer) > limit || Need(longer with { Layers = 0 }) > hostMiB * MiB);
        Assert.True(!choosesLayers || choice.Layers == Layers || Need(choice with { Layers = choice.Layers + 1 }) > deviceMiB * MiB);
    }
}
