using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>Properties of the machine that a native library may be selected by.</summary>
/// <param name="OSPlatform">Operating system.</param>
/// <param name="Gpu">First GPU; null: no usable GPU.</param>
public sealed record SystemInfo(OSPlatform OSPlatform, DeviceDescription? Gpu)
{
    /// <summary>Detects the properties of this machine.</summary>
    public static SystemInfo Get() => new(Platform(), NativeEngine.TryDescribeDevice(out DeviceDescription? gpu, out _) ? gpu : null);

    private static OSPlatform Platform() =>
        OperatingSystem.IsWindows() ? OSPlatform.Windows : OperatingSystem.IsMacOS() ? OSPlatform.OSX : OSPlatform.Linux;
}
