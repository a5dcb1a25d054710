using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Evaluation;
using LlamaKivi.Native;
using ScottPlot;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi analyze`: magnitudes of a model's keys and values, and the errors that quantizing them causes in attention.</summary>
internal static class AnalyzeCommand
{
    private const int Multiple = 128;  // all group sizes divide a window

    public static Command Create()
    {
        var common = new CommonOptions();
        var file = new Option<string>("--file", "-f") { Description = $"Text; {TextInput.Hint}", Required = true };
        var window = NumberOptions.Whole("--ctx-size", "-c", "Window size in tokens, at most the model's trained context size", Multiple, NumberOptions.MostTokens, 1024);
        var limit = NumberOptions.Whole("--max-tokens", null, "Use only the first N tokens of the text", 1, int.MaxValue, 4096);
        var layers = new Option<string?>("--layers") { Description = "Layers, such as 0,5,11 (default: all)" };
        var types = new Option<string>("--kv-cache") { Description = "KV cache types to measure", DefaultValueFactory = _ => "q8_0,q4_0,kivi4,kivi2,kivi4-paper,kivi2-paper" };
        var output = new Option<string?>("--output", "-o") { Description = "Folder for the heat maps, analyze-layer-N.png (default: none)" };
        var command = new Command("analyze", "Analyze a model's keys and values and the error of quantizing them along each axis");
        CommonOptions.Add(command, [common.Model, file, window, limit, layers, types, output, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            ModelParams parameters = common.Parameters(parsed);
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            string text = await TextInput.ReadAsync(parsed.GetValue(file)!, cancellationToken).ConfigureAwait(false);
            parameters.KvCache = KvCacheParams.Parse("f16");
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            int size = Math.Min(parsed.GetValue(window), weights.ContextSize) / Multiple * Multiple;
            int[] tokens = weights.Tokenizer.Encode(text, weights.Tokenizer.AddBos, parseSpecial: false);
            tokens = tokens[..Math.Min(tokens.Length, parsed.GetValue(limit))];
            size = Math.Min(size, tokens.Length / Multiple * Multiple);
            if (size == 0)
            {
                throw new UsageException($"the text has {tokens.Length} tokens; text and -c must be at least {Multiple} tokens");
            }

            ModelDescription model = weights.Model.Description;
            int[] chosen = Layers(parsed.GetValue(layers), model.LayerCount);
            IEnumerable<CacheVariant> stored = caches.Select(cache => CacheVariant.OfCache(weights.Model.Gguf, new NamedKvCache(cache.Name, cache.Params)));
            string? folder = parsed.GetValue(output);
            var analysis = new CacheAnalysis(model, [.. CacheVariant.AllPlain(model.HeadSize), .. stored], chosen) { KeepMaps = folder is not null };
            int windows = tokens.Length / size;
            await Terminal.WithProgress($"{windows} windows of {size} tokens", report => Task.Run(
                () =>
                {
                    analysis.Add(weights, parameters, tokens, size, report, cancellationToken);
                    return true;
                },
                cancellationToken)).ConfigureAwait(false);

            if (folder is not null)
            {
                Directory.CreateDirectory(folder);
                foreach ((int layer, MagnitudeMap map) in analysis.Maps)
                {
                    Draw(map, $"layer {layer}, KV head 0", Path.Combine(folder, $"analyze-layer-{layer}.png"));
                }

                Console.Error.WriteLine($"{analysis.Maps.Count} heat maps in {folder}");
                PlotFonts.WarnIfMissing();
            }

            if (parsed.GetValue(common.Json))
            {
                WriteJson(analysis, windows * size);
            }
            else
            {
                WriteTables(analysis, Path.GetFileName(parameters.ModelPath), windows, size);
            }

            return ExitCode.Ok;
        });
    }

    private static int[] Layers(string? list, int count)
    {
        if (list is null)
        {
            return [.. Enumerable.Range(0, count)];
        }

        return [.. list.Split(',', StringSplitOptions.TrimEntries).Select(text =>
            int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int layer) && layer < count
                ? layer
                : throw new UsageException($"--layers: '{text}' is not a layer; this model has layers 0 to {count - 1}")).Distinct()];
    }

    private static void Draw(MagnitudeMap map, string title, string path)
    {
        var multiplot = new Multiplot();
        multiplot.AddPlots(2);
        multiplot.Layout = new ScottPlot.MultiplotLayouts.Columns();
        foreach ((int index, string name, double[,] data) in (ReadOnlySpan<(int, string, double[,])>)[(0, "|K| after RoPE", map.Keys), (1, "|V|", map.Values)])
        {
            Plot plot = multiplot.GetPlot(index);
            ScottPlot.Plottables.Heatmap heat = plot.Add.Heatmap(data);
            heat.FlipVertically = true;
            plot.Add.ColorBar(heat);
            plot.Title(index == 0 ? $"{title}: {name}" : name);
            plot.XLabel("channel");
            plot.YLabel(map.Step == 1 ? "token" : $"token / {map.Step}");
            plot.Axes.Margins(0, 0);
        }

        WholeFile.Write(path, file => file.Write(multiplot.Render(1200, 500).GetImageBytes(ImageFormat.Png)));
    }

    private static void WriteTables(CacheAnalysis analysis, string model, int windows, int size)
    {
        Terminal.Out.WriteLine($"{model}: {windows} windows of {size} tokens, {analysis.Layers.Count} layers. Relative errors in percent, over all layers:");
        Table axes = new Table().Border(TableBorder.Markdown).AddColumns("stored", "bits", "group", "bits/element", "K", "V", "attention weights", "attention output");
        Table types = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "bits/element", "K", "V", "attention weights", "attention output");
        for (int i = 0; i < analysis.Variants.Count; i++)
        {
            CacheVariant v = analysis.Variants[i];
            CacheErrors e = analysis.Total(i);
            if (v.Cache is null)
            {
                axes.AddRow(v.Name, Whole(v.Bits), Whole(v.Group), Terminal.Number(v.BitsPerElement, 2), v.Keys ? Percent(e.Keys) : "", v.Values ? Percent(e.Values) : "",
                    v.Keys ? Percent(e.Weights) : "", Percent(e.Output));
            }
            else
            {
                types.AddRow(v.Name, Terminal.Number(v.BitsPerElement, 2), Percent(e.Keys), Percent(e.Values), Percent(e.Weights), Percent(e.Output));
            }
        }

        Terminal.Out.Write(axes);
        Terminal.Out.WriteLine();
        Terminal.Out.Write(types);
        Terminal.Out.WriteLine();
        Terminal.Out.WriteLine($"By layer: ratio of key norms, first {LayerProfile.FirstTokens} tokens to the rest; outlier channels (mean magnitude over {LayerProfile.OutlierFactor} times the median of their head); error of the attention output by KV cache:");
        int[] caches = [.. Enumerable.Range(0, analysis.Variants.Count).Where(i => analysis.Variants[i].Cache is not null)];
        Table layers = new Table().Border(TableBorder.Markdown).AddColumns(["layer", "first keys", "K outliers", "V outliers", .. caches.Select(i => analysis.Variants[i].Name)]);
        foreach ((int layer, LayerProfile profile) in analysis.Profiles)
        {
            IReadOnlyList<OutlierChannel> outliers = profile.KeyOutliers;
            string worst = outliers.Count == 0 ? "" : string.Create(CultureInfo.InvariantCulture, $" ({outliers.Max(c => c.Factor):F1}x)");
            layers.AddRow([Whole(layer), Terminal.Number(profile.FirstKeyNorm) + "x", Whole(outliers.Count) + worst, Whole(profile.ValueOutliers.Count), .. caches.Select(i => Percent(analysis.Errors(layer, i).Output))]);
        }

        Terminal.Out.Write(layers);
    }

    private static void WriteJson(CacheAnalysis analysis, int tokens) => Json.Write(writer =>
    {
        writer.WriteStartObject();
        writer.WriteNumber("tokens", tokens);
        writer.WriteStartArray("variants");
        for (int i = 0; i < analysis.Variants.Count; i++)
        {
            CacheVariant v = analysis.Variants[i];
            writer.WriteStartObject();
            writer.WriteString("name", v.Name);
            if (v.Cache is null)
            {
                writer.WriteNumber("bits", v.Bits);
                writer.WriteNumber("group", v.Group);
            }

            writer.WriteNumber("bits_per_element", v.BitsPerElement);
            WriteErrors(writer, analysis.Total(i));
            writer.WriteStartObject("layers");
            foreach (int layer in analysis.Layers)
            {
                writer.WriteStartObject(Whole(layer));
                WriteErrors(writer, analysis.Errors(layer, i));
                writer.WriteEndObject();
            }

            writer.WriteEndObject();
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        writer.WriteStartArray("layers");
        foreach ((int layer, LayerProfile profile) in analysis.Profiles)
        {
            writer.WriteStartObject();
            writer.WriteNumber("layer", layer);
            writer.WriteNumber("first_key_norm", profile.FirstKeyNorm);
            WriteOutliers(writer, "key_outliers", profile.KeyOutliers);
            WriteOutliers(writer, "value_outliers", profile.ValueOutliers);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
        writer.WriteEndObject();
    });

    private static void WriteErrors(System.Text.Json.Utf8JsonWriter writer, CacheErrors e)
    {
        writer.WriteNumber("k_error", e.Keys);
        writer.WriteNumber("v_error", e.Values);
        writer.WriteNumber("weights_error", e.Weights);
        writer.WriteNumber("output_error", e.Output);
    }

    private static void WriteOutliers(System.Text.Json.Utf8JsonWriter writer, string name, IReadOnlyList<OutlierChannel> outliers)
    {
        writer.WriteStartArray(name);
        foreach ((int head, int channel, double factor) in outliers)
        {
            writer.WriteStartObject();
            writer.WriteNumber("head", head);
            writer.WriteNumber("channel", channel);
            writer.WriteNumber("factor", factor);
            writer.WriteEndObject();
        }

        writer.WriteEndArray();
    }

    private static string Percent(double error) => Terminal.Number(100 * error, 2);

    private static string Whole(int value) => value.ToString(CultureInfo.InvariantCulture);
}
