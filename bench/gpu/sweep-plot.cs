// Draws decode speed and peak memory over the number of sequences, from the rows of bench/gpu/sweep.sh:
//   dotnet run bench/gpu/sweep-plot.cs -- OUT.png ROWS.jsonl [STOCK.csv]
// STOCK.csv: another engine's points, one a line: label, sequences, tokens per second, peak MiB (0: not measured).
#:package ScottPlot
#:property PublishAot=false
using System.Globalization;
using System.Text.Json;
using LlamaKivi.Bench.Gpu;
using ScottPlot;

if (args.Length is < 2 or > 3)
{
    Console.Error.WriteLine("usage: dotnet run bench/gpu/sweep-plot.cs -- OUT.png ROWS.jsonl [STOCK.csv]");
    return 2;
}

Row[] rows = [.. File.ReadLines(args[1]).Where(line => line.StartsWith('{')).Select(Row.Of)];
Row[] stock = args.Length > 2 ? [.. File.ReadLines(args[2]).Where(line => line.Length > 0 && line[0] != '#').Select(Row.OfCsv)] : [];

var figure = new Multiplot();
figure.AddPlots(2);
Draw(figure.GetPlot(0), "decode, tokens per second", row => row.Speed);
Draw(figure.GetPlot(1), "peak memory of the GPU, GiB", row => row.Mib / 1024);
figure.Layout = new ScottPlot.MultiplotLayouts.Columns();
figure.SavePng(args[0], 1200, 480);
return 0;

void Draw(Plot plot, string title, Func<Row, double> value)
{
    foreach (IGrouping<string, Row> line in rows.GroupBy(row => row.Label))
    {
        Row[] points = [.. line.OrderBy(row => row.Sequences)];
        ScottPlot.Plottables.Scatter drawn = plot.Add.Scatter(points.Select(row => (double)row.Sequences).ToArray(), points.Select(value).ToArray());
        drawn.LegendText = line.Key;
        drawn.LineWidth = 2;
        drawn.MarkerSize = 8;
    }

    foreach (IGrouping<string, Row> line in stock.Where(row => value(row) > 0).GroupBy(row => row.Label))
    {
        ScottPlot.Plottables.Scatter drawn = plot.Add.ScatterPoints(line.Select(row => (double)row.Sequences).ToArray(), line.Select(value).ToArray());
        drawn.LegendText = line.Key;
        drawn.MarkerShape = MarkerShape.OpenDiamond;
        drawn.MarkerSize = 11;
    }

    plot.XLabel("sequences");
    plot.Title(title);
    plot.ShowLegend(Alignment.LowerRight);
    plot.Axes.SetLimitsY(0, 1.1 * rows.Concat(stock).Max(value));
}

namespace LlamaKivi.Bench.Gpu
{
    /// <summary>One measurement: cache type, parallel sequences, decode speed, peak GPU memory in MiB.</summary>
    internal sealed record Row(string Label, int Sequences, double Speed, double Mib)
    {
        public static Row Of(string line)
        {
            JsonElement json = JsonDocument.Parse(line).RootElement;
            string label = json.TryGetProperty("label", out JsonElement given) ? given.GetString()! : json.GetProperty("kv_cache").GetString()!;
            return new Row(label, json.GetProperty("pl").GetInt32(), json.GetProperty("speed_tg").GetDouble(), json.GetProperty("gpu_peak_mib").GetDouble());
        }

        public static Row OfCsv(string line)
        {
            string[] fields = line.Split(',', StringSplitOptions.TrimEntries);
            return new Row(fields[0], int.Parse(fields[1], CultureInfo.InvariantCulture), double.Parse(fields[2], CultureInfo.InvariantCulture), double.Parse(fields[3], CultureInfo.InvariantCulture));
        }
    }
}
