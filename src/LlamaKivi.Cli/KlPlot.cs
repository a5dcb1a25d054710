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
        foreach (PerplexityResult r in results)
        {
            double y = Math.Log10(r.Divergence.Mean);
            plot.Add.Marker(r.BitsPerElement, y, MarkerShape.FilledCircle, 9);
            ScottPlot.Plottables.Text label = plot.Add.Text(r.KvCache, r.BitsPerElement, y);
            label.OffsetX = 8;
            label.OffsetY = -16;
        }

        // Ticks at 1, 2 and 5 times the powers of ten within the data.
        double low = results.Length > 0 ? results.Min(r => r.Divergence.Mean) : 1;
        double high = results.Length > 0 ? results.Max(r => r.Divergence.Mean) : 1;
        int first = (int)Math.Floor(Math.Log10(low)) - 1;
        double[] ticks = [.. Enumerable.Range(first, (int)Math.Ceiling(Math.Log10(high)) - first + 2).SelectMany(power => Marks.Select(mark => mark * Math.Pow(10, power)))];
        plot.Axes.Left.SetTicks([.. ticks.Select(Math.Log10)], [.. ticks.Select(tick => tick.ToString("G3", CultureInfo.InvariantCulture))]);
        plot.Title(title);
        plot.XLabel("bits per element");
        plot.YLabel("mean KL divergence from f16, nats per token");
        plot.Axes.Margins(0.15, 0.15);
        return plot;
    }
}
