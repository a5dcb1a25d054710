using System.Globalization;
using System.Text;
using LlamaKivi.Evaluation;
using ScottPlot;

namespace LlamaKivi.Cli;

/// <summary>Plot of KL divergence over bits per element, one marker per cache.</summary>
internal static class KlPlot
{
    private const int Width = 900;
    private const int Height = 560;

    private static readonly double[] Marks = [1, 2, 5];

    /// <summary>Heights of a label's middle above its marker, in pixels, in the order in which they are tried.</summary>
    private static readonly float[] Shifts = [0, 9, -9, 18, -18, 27, -27, 36, -36, 45, -45];

    /// <summary>Checks the file name before the measurement.</summary>
    /// <exception cref="UsageException">The extension is neither .png nor .svg.</exception>
    public static void Check(string path)
    {
        if (Path.GetExtension(path).ToUpperInvariant() is not (".PNG" or ".SVG"))
        {
            throw new UsageException($"--plot is '{path}'; name a .png or .svg file");
        }
    }

    /// <summary>Writes the plot as PNG or SVG, by the file's extension. Caches without divergence, such as the reference, have no place on the logarithmic axis.</summary>
    public static void Write(string path, string title, IEnumerable<PerplexityResult> results)
    {
        using Plot plot = Create(title, [.. results.Where(r => r.Divergence.Mean > 0)]);
        byte[] image = Path.GetExtension(path).Equals(".svg", StringComparison.OrdinalIgnoreCase)
            ? Encoding.UTF8.GetBytes(plot.GetSvgXml(Width, Height))
            : plot.GetImageBytes(Width, Height, ImageFormat.Png);
        WholeFile.Write(path, file => file.Write(image));
    }

    private static Plot Create(string title, PerplexityResult[] results)
    {
        var plot = new Plot();
        (string Name, double Bits, double Log)[] points = [.. results.Select(r => (r.KvCache, r.BitsPerElement, Math.Log10(r.Divergence.Mean)))];
        double[] bits = [.. points.Select(point => point.Bits).DefaultIfEmpty(1)];
        double[] divergences = [.. points.Select(point => point.Log).DefaultIfEmpty(0)];
        plot.Axes.SetLimits(bits.Min() - 0.5, bits.Max() + 2.4, divergences.Min() - 0.4, divergences.Max() + 0.4);
        double perBit = (Width - 100) / (bits.Max() - bits.Min() + 2.9);
        double perDecade = (Height - 90) / (divergences.Max() - divergences.Min() + 0.8);
        List<CoordinateRect> taken = [.. points.Select(point => Around(point.Bits * perBit, point.Log * perDecade, -5, 5, -5, 5))];
        foreach ((string name, double x, double y) in points)
        {
            plot.Add.Marker(x, y, MarkerShape.FilledCircle, 9);
            CoordinateRect At(float shift) => Around(x * perBit, y * perDecade, 8, 8 + (7.5 * name.Length), shift - 8, shift + 8);
            float free = Shifts.FirstOrDefault(shift => !taken.Exists(other => Overlap(other, At(shift))));
            taken.Add(At(free));
            ScottPlot.Plottables.Text label = plot.Add.Text(name, x, y);
            label.LabelAlignment = Alignment.MiddleLeft;
            label.OffsetX = 8;
            label.OffsetY = -free;
        }

        // Ticks at 1, 2 and 5 times the powers of ten within the data.
        int first = (int)Math.Floor(divergences.Min()) - 1;
        double[] ticks = [.. Enumerable.Range(first, (int)Math.Ceiling(divergences.Max()) - first + 2).SelectMany(power => Marks.Select(mark => mark * Math.Pow(10, power)))];
        plot.Axes.Left.SetTicks([.. ticks.Select(Math.Log10)], [.. ticks.Select(tick => tick.ToString("G3", CultureInfo.InvariantCulture))]);
        plot.Title(title);
        plot.XLabel("bits per element");
        plot.YLabel("mean KL divergence from f16, nats per token");
        return plot;
    }

    /// <summary>A rectangle in pixels, by its edges' distances from a point; the vertical axis points up.</summary>
    private static CoordinateRect Around(double x, double y, double left, double right, double bottom, double top) => new(x + left, x + right, y + bottom, y + top);

    private static bool Overlap(CoordinateRect a, CoordinateRect b) => a.Left < b.Right && b.Left < a.Right && a.Bottom < b.Top && b.Bottom < a.Top;
}
