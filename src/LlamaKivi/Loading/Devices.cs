using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>Names of the devices that can hold a model.</summary>
internal static class Devices
{
    private const string Cpu = "CPU";
    private const string Gpu = "CUDA0";

    /// <summary>Checks that all devices exist.</summary>
    /// <returns>Whether one of the devices is a GPU.</returns>
    /// <exception cref="UnknownDeviceException">A device does not exist.</exception>
    public static bool Check(IReadOnlyList<string> names)
    {
        bool isGpu = false;
        foreach (string name in names)
        {
            if (string.Equals(name, Gpu, StringComparison.OrdinalIgnoreCase) && NativeEngine.TryDescribeDevice(out _, out _))
            {
                isGpu = true;
            }
            else if (!string.Equals(name, Cpu, StringComparison.OrdinalIgnoreCase))
            {
                throw new UnknownDeviceException(name, NativeEngine.TryDescribeDevice(out _, out _) ? [Gpu, Cpu] : [Cpu]);
            }
        }

        return isGpu;
    }
}
