using System.Diagnostics;
using System.Runtime.InteropServices;

namespace LlamaKivi.TestHelpers;

/// <summary>Processor time of the current thread: bounds on it hold however busy the machine is.</summary>
internal static class ThreadTime
{
    private const int ThreadProcessorClock = 3;  // CLOCK_THREAD_CPUTIME_ID of Linux

    /// <summary>Time since some moment; elsewhere than on Linux, time that passes while the thread waits counts too.</summary>
    public static TimeSpan Now
    {
        get
        {
            if (!OperatingSystem.IsLinux())
            {
                return Stopwatch.GetElapsedTime(0);
            }

            return GetTime(ThreadProcessorClock, out Time time) == 0
                ? TimeSpan.FromSeconds(time.Seconds) + TimeSpan.FromMicroseconds(time.Nanoseconds / 1000)
                : throw new InvalidOperationException("The system has no processor time of a thread.");
        }
    }

    [DllImport("libc", EntryPoint = "clock_gettime")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int GetTime(int clock, out Time time);

    private struct Time
    {
        public nint Seconds;
        public nint Nanoseconds;
    }
}
