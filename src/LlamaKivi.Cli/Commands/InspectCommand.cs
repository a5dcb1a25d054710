using System.CommandLine;
using System.Text.Json;
using LlamaKivi.Cli.Options;
using LlamaKivi.Cli.Output;
using LlamaKivi.Native;
using Spectre.Console;

namespace LlamaKivi.Cli.Commands;

/// <summary>Shows what is in a GGUF file and what its KV cache would take.</summary>
internal static class InspectCommand
{
    public static Command Create()
    {
        Argument<string> file = new("file") { Description = "GGUF file." };
        Option<bool> json = new("--json") { Description = "Write one JSON object." };
        var command = new Command("inspect", "Show a GGUF file's metadata, tensors and KV cache estimates.") { file, json };
        command.SetAction(parsed =>
        {
            string path = ModelOption.RequireFile(parsed.GetRequiredValue(file), "file");
            using GgufFile gguf = GgufFile.Open(path);
            InspectReport report = InspectReport.Create(path, gguf);
            if (parsed.GetValue(json))
            {
                Console.Out.WriteLine(JsonSerializer.Serialize(report, CliJson.Readable.InspectReport));
            }
            else
            {
                WriteText(report);
            }
        });
        return command;
    }

    private static void WriteText(InspectReport report)
    {
        TextWriter writer = Console.Out;
        writer.WriteLine($"{report.File}: GGUF v{report.Version}, {Units.MiB(report.FileBytes)} MiB, alignment {report.Alignment}");

        writer.WriteLine();
        writer.WriteLine($"metadata ({report.Metadata.Count})");
        int width = report.Metadata.Count > 0 ? report.Metadata.Max(entry => entry.Key.Length) : 0;
        foreach (MetadataEntry entry in report.Metadata)
        {
            writer.WriteLine($"  {entry.Key.PadRight(width)}  {entry.Type,-8}  {entry.Display}");
        }

        writer.WriteLine();
        writer.WriteLine($"tensors ({report.Tensors.Count})");
        int nameWidth = report.Tensors.Count > 0 ? report.Tensors.Max(tensor => tensor.Name.Length) : 0;
        foreach (TensorEntry tensor in report.Tensors)
        {
            writer.WriteLine($"  {tensor.Name.PadRight(nameWidth)}  {tensor.Type,-8}  {string.Join(" x ", tensor.Shape),-20}  {Units.MiB(tensor.Bytes),10} MiB");
        }

        writer.WriteLine();
        writer.WriteLine("tensor types");
        Table types = Terminal.CreateTable("type", "tensors", "elements", "MiB", "bits/weight");
        foreach (TensorTypeSummary type in report.TensorTypes)
        {
            types.AddCells(type.Type, $"{type.Tensors}", $"{type.Elements}", Units.MiB(type.Bytes), $"{type.BitsPerWeight:0.00}");
        }

        Terminal.Out.Write(types);
        writer.WriteLine();
        WriteEstimates(report);
    }

    private static void WriteEstimates(InspectReport report)
    {
        TextWriter writer = Console.Out;
        if (report.CacheEstimateError is { } reason)
        {
            writer.WriteLine($"KV cache: no estimate: {reason}");
            return;
        }

        writer.WriteLine($"KV cache, one sequence of {report.ContextLength} tokens");
        Table table = Terminal.CreateTable("kv_cache", "bits/element", "bytes/token", "ring MiB", "total MiB");
        foreach (CacheEstimate estimate in report.CacheEstimates)
        {
            if (estimate.Error is null)
            {
                table.AddCells(
                    estimate.KvCache, $"{estimate.BitsPerElement:0.00}", $"{estimate.BytesPerToken:0.0}", Units.MiB(estimate.RingBytes), Units.MiB(estimate.TotalBytes));
            }
        }

        Terminal.Out.Write(table);
        foreach (CacheEstimate estimate in report.CacheEstimates.Where(estimate => estimate.Error is not null))
        {
            writer.WriteLine($"{estimate.KvCache}: {estimate.Error}");
        }
    }
}
