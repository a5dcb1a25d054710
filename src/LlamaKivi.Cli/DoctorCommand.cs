using System.CommandLine;
using System.Globalization;
using LlamaKivi.Native;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi doctor`: engine, CPU, GPU and libraries on this machine.</summary>
internal static class DoctorCommand
{
    public static Command Create()
    {
        var common = new CommonOptions();
        var command = new Command("doctor", "Show what the engine detects: CPU, GPU, libraries");
        CommonOptions.Add(command, common.Json);
        return command.Do((parsed, _) =>
        {
            NativeEngine.TryDescribeDevice(out DeviceDescription? device, out string? reason);
            if (parsed.GetValue(common.Json))
            {
                WriteJson(device, reason);
            }
            else
            {
                Write(device, reason);
            }

            return Task.FromResult(ExitCode.Ok);
        });
    }

    private static void Write(DeviceDescription? device, string? reason)
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
    }

    private static void WriteJson(DeviceDescription? device, string? reason) => Json.Write(writer =>
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
        writer.WriteEndObject();
    });
}
