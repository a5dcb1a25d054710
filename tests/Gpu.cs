using Xunit;

namespace LlamaKivi.TestHelpers;

/// <summary>Detects a GPU through the operating system. If there is one, an engine that does not use it is a failure.</summary>
internal static class Gpu
{
    /// <summary>Fails if the system has a GPU. For tests that need a machine without one, after the engine has found none.</summary>
    /// <param name="reason">The engine's reason for not using a GPU.</param>
    public static void AssertNone(string? reason) =>
        Assert.False(IsPresent(Directory.Exists("/dev") ? Directory.EnumerateFileSystemEntries("/dev") : [], Environment.GetEnvironmentVariable("CUDA_VISIBLE_DEVICES")),
            $"There is a GPU, but the engine does not use it: {reason}");

    /// <summary>Whether there is a GPU device file (/dev/nvidia0 and so on, or WSL's /dev/dxg) that the user does not hide.</summary>
    /// <param name="deviceFiles">Device files of the system. /dev/nvidiactl alone means a driver without a GPU.</param>
    /// <param name="visible">Value of CUDA_VISIBLE_DEVICES; "" and "-1" hide all GPUs.</param>
    public static bool IsPresent(IEnumerable<string> deviceFiles, string? visible) =>
        visible is not ("" or "-1")
        && deviceFiles.Select(Path.GetFileName).Any(name => name == "dxg" || (name!.StartsWith("nvidia", StringComparison.Ordinal) && name.Length > 6 && char.IsAsciiDigit(name[6])));
}
