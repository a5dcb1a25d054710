using System.Globalization;
using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Properties of the machine that a native library can be selected by.</summary>
/// <param name="OSPlatform">The operating system.</param>
/// <param name="CudaMajorVersion">Major CUDA version that the driver of the first GPU supports; -1: no GPU is usable.</param>
/// <param name="VulkanVersion">Null: the engine does not use Vulkan.</param>
public record SystemInfo(OSPlatform OSPlatform, int CudaMajorVersion, string? VulkanVersion)
{
    /// <summary>The first GPU; null: none is usable.</summary>
    public DeviceDescription? Gpu { get; init; }

    /// <summary>Properties of this machine.</summary>
    public static SystemInfo Get()
    {
        DeviceDescription? gpu = NativeEngine.TryDescribeDevice(out DeviceDescription? found, out _) ? found : null;
        return new SystemInfo(Platform(), gpu is null ? -1 : Major(gpu.Driver), null) { Gpu = gpu };
    }

    // "driver for CUDA 12.4, runtime 12.0"
    private static int Major(string driver)
    {
        string digits = string.Concat(driver.SkipWhile(letter => !char.IsAsciiDigit(letter)).TakeWhile(char.IsAsciiDigit));
        return int.TryParse(digits, NumberStyles.None, CultureInfo.InvariantCulture, out int major) ? major : -1;
    }

    private static OSPlatform Platform() =>
        OperatingSystem.IsWindows() ? OSPlatform.Windows : OperatingSystem.IsMacOS() ? OSPlatform.OSX : OSPlatform.Linux;
}
