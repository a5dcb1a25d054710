using Xunit;

namespace LlamaKivi.TestHelpers;

/// <summary>Whether this machine has a GPU, as the system sees it: an engine that does not use one is a failure there.</summary>
internal static class Gpu
{
    /// <summary>Fails if there is a GPU; for tests of machines without one, where the engine has found none.</summary>
    /// <param name="reason">The engine's.</param>
    public static void AssertNone(string? reason) =>
        Assert.False(IsPresent(Directory.Exists("/dev") ? Directory.EnumerateFileSystemEntries("/dev") : [], Environment.GetEnvironmentVariable("CUDA_VISIBLE_DEVICES")),
            $"There is a GPU, and the engine does not use it: {reason}");

    /// <summary>Whether there is a device file of a GPU (/dev/nvidia0 and so on, or WSL's /dev/dxg) that the user does not hide.</summary>
    /// <param name="deviceFiles">Those of the system. /dev/nvidiactl alone is a driver without a GPU.</param>
    /// <param name="visible">CUDA_VISIBLE_DEVICES: hides all GPUs if it names none.</param>
    public static bool IsPresent(IEnumerable<string> deviceFiles, string? visible) =>
        visible is not ("" or "-1")
        && deviceFiles.Select(Path.GetFileName).Any(name => name == "dxg" || (name!.StartsWith("nvidia", StringComparison.Ordinal) && name.Length > 6 && char.IsAsciiDigit(name[6])));
}
