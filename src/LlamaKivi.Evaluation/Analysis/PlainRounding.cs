namespace LlamaKivi.Evaluation;

/// <summary>Asymmetric rounding to the nearest of 2^bits levels between a group's minimum and maximum (KIVI, section 3.1).</summary>
internal static class PlainRounding
{
    /// <summary>Rounds rows [n, d] in place. A last, partial group is not changed.</summary>
    public static void Round(Span<float> rows, int n, int d, bool perChannel, int bits, int group)
    {
        int levels = (1 << bits) - 1;
        (int lines, int length, int lineStep, int step) = perChannel ? (d, n, 1, d) : (n, d, d, 1);
        for (int line = 0; line < lines; line++)
        {
            for (int begin = 0; begin + group <= length; begin += group)
            {
                int at = (line * lineStep) + (begin * step);
                float least = float.MaxValue;
                float greatest = float.MinValue;
                for (int i = 0; i < group; i++)
                {
                    least = Math.Min(least, rows[at + (i * step)]);
                    greatest = Math.Max(greatest, rows[at + (i * step)]);
                }

                float scale = (greatest - least) / levels;
                for (int i = 0; i < group && scale > 0; i++)
                {
                    ref float x = ref rows[at + (i * step)];
                    x = (MathF.Round((x - least) / scale) * scale) + least;
                }
            }
        }
    }
}
