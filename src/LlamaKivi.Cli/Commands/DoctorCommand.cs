using System.CommandLine;
using System.Globalization;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi doctor`: engine, CPU, GPU and libraries on this machine.</summary>
internal static class DoctorCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var context = NumberOptions.Whole("--ctx-size", "-c", "Context size of --model in tokens (default: what fits, at most the model's trained context size)", 1, NumberOptions.MostTokens);
        var type = new Option<string>("--kv-cache") { Description = "KV cache type of --model", DefaultValueFactory = _ => "kivi2" };
        var command = new Command("doctor", "Show what the engine detects: CPU, GPU, libraries; with --model, what of it fits in memory");
        CommonOptions.Add(command, [common.Model, context, type, common.TypeK, common.TypeV, .. common.Context, common.Json]);
        return command.Do((parsed, _) =>
        {
            (string? fit, string? misfit) = parsed.GetValue(common.Model) is null ? (null, null) : Fit(common, parsed, context, type);
            NativeEngine.TryDescribeDevice(out DeviceDescription? device, out string? reason);
            if (parsed.GetValue(common.Json))
            {
                WriteJson(device, reason, fit, misfit);
            }
            else
            {
                Write(device, reason, fit ?? (misfit is null ? null : $"none: {misfit}"));
            }

            return Task.FromResult(misfit is null ? ExitCode.Ok : ExitCode.Failed);
        });
    }

    // What --fit would choose, or why nothing fits.
    private static (string? Fit, string? Misfit) Fit(CommonOptions common, ParseResult parsed, Option<int?> context, Option<string> type)
    {
        ModelParams parameters = common.Parameters(parsed);
        parameters.ContextSize = (uint?)parsed.GetValue(context);
        parameters.KvCache = common.SelectedCache(parsed, type, parameters.ModelPath, out _);
        using GgufFile file = GgufFile.Open(parameters.ModelPath);
        try
        {
            return (MemoryFit.Apply(file, parameters) ?? MemoryFit.Describe(file, parameters), null);
        }
        catch (Exception e) when (e is NativeOutOfMemoryException or OutOfDeviceMemoryException or DeviceException)
        {
            return (null, Errors.FirstLine(e));
        }
    }

    private static void Write(DeviceDescription? device, string? reason, string? fit)
    {
        Console.Out.WriteLine($"engine   {NativeEngine.Version}, interface {NativeEngine.AbiVersion}");
        Console.Out.WriteLine($"platform {NativeEngine.Platform}");
        Console.Out.WriteLine($"CPU      {NativeEngine.CpuDescription}, {Environment.ProcessorCount} processors");
        Console.Out.WriteLine(device is null
            ? $"GPU      none: {reason}"
            : string.Create(CultureInfo.InvariantCulture,
                $"GPU      {device.Name}, compute capability {device.Capability / 10}.{device.Capability % 10}, {device.Processors} multiprocessors, " +
                $"{device.FreeBytes / (double)(1 << 30):F1} of {device.MemoryBytes / (double)(1 << 30):F1} GiB free; {device.Driver}"));
        foreach (string path in NativeEngine.LibraryPaths)
        {
            Console.Out.WriteLine($"library  {path}");
        }

        if (fit is not null)
        {
            Console.Out.WriteLine($"fit      {fit}");
        }
    }

    private static void WriteJson(DeviceDescription? device, string? reason, string? fit, string? misfit) => Json.Write(writer =>
    {
        writer.WriteStartObject();
        writer.WriteString("version", NativeEngine.Version);
        writer.WriteNumber("interface", NativeEngine.AbiVersion);
        writer.WriteString("platform", NativeEngine.Platform);
        writer.WriteString("cpu", NativeEngine.CpuDescription);
        if (device is null)
        {
            writer.WriteNull("gpu");
            writer.WriteString("gpu_reason", reason);
        }
        else
        {
            writer.WriteStartObject("gpu");
            writer.WriteString("name", device.Name);
            writer.WriteString("driver", device.Driver);
            writer.WriteNumber("compute_capability", device.Capability);
            writer.WriteNumber("multiprocessors", device.Processors);
            writer.WriteNumber("memory_bytes", device.MemoryBytes);
            writer.WriteNumber("free_bytes", device.FreeBytes);
            writer.WriteEndObject();
        }

        writer.WriteStartArray("libraries");
        foreach (string path in NativeEngine.LibraryPaths)
        {
            writer.WriteStringValue(path);
        }

        writer.WriteEndArray();
        if (fit is not null)
        {
            writer.WriteString("fit", fit);
        }
        else if (misfit is not null)
        {
            writer.WriteNull("fit");
            writer.WriteString("fit_reason", misfit);
        }

        writer.WriteEndObject();
    });
}
