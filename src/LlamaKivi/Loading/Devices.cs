using LlamaKivi.Exceptions;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

/// <summary>The devices that a model can be loaded to, by name.</summary>
internal static class Devices
{
    private const string Cpu = "CPU";
    private const string Gpu = "CUDA0";

    /// <summary>Checks that all of the devices are there.</summary>
    /// <returns>Whether one of them is a GPU.</returns>
    /// <exception cref="UnknownDeviceException">One is not there.</exception>
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
