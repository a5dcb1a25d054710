using System.Runtime.InteropServices;

namespace LlamaKivi.Native;

/// <summary>What a native library may be chosen by.</summary>
/// <param name="OSPlatform">The operating system.</param>
/// <param name="Gpu">The first GPU; null: none is usable.</param>
public sealed record SystemInfo(OSPlatform OSPlatform, DeviceDescription? Gpu)
{
    /// <summary>Looks at this machine.</summary>
    public static SystemInfo Get() => new(Platform(), NativeEngine.TryDescribeDevice(out DeviceDescription? gpu, out _) ? gpu : null);

    private static OSPlatform Platform() =>
        OperatingSystem.IsWindows() ? OSPlatform.Windows : OperatingSystem.IsMacOS() ? OSPlatform.OSX : OSPlatform.Linux;
}
