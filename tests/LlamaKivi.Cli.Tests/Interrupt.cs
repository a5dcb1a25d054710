using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Xunit;

namespace LlamaKivi.Cli.Tests;

/// <summary>Sends Ctrl-C to a program.</summary>
internal static class Interrupt
{
    private const uint CtrlC = 0;
    private const uint ParentProcess = uint.MaxValue;

    public static async Task SendAsync(Process process, CancellationToken cancellationToken)
    {
        if (OperatingSystem.IsWindows())
        {
            await SendToConsoleAsync(process, cancellationToken);
            return;
        }

        using Process kill = Process.Start("kill", ["-INT", process.Id.ToString(CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync(cancellationToken);
    }

    // The event goes to every process of the console: the program has one of its own (CreateNoWindow), and this process ignores the event.
    private static async Task SendToConsoleAsync(Process process, CancellationToken cancellationToken)
    {
        FreeConsole();
        try
        {
            Assert.True(AttachConsole((uint)process.Id), $"AttachConsole: error {Marshal.GetLastPInvokeError()}");
            Assert.True(SetConsoleCtrlHandler(0, add: true), "SetConsoleCtrlHandler");
            Assert.True(GenerateConsoleCtrlEvent(CtrlC, 0), $"GenerateConsoleCtrlEvent: error {Marshal.GetLastPInvokeError()}");
            await Task.Delay(200, cancellationToken);  // a thread of each process handles the event
        }
        finally
        {
            FreeConsole();
            AttachConsole(ParentProcess);
            SetConsoleCtrlHandler(0, add: false);
        }
    }

    [DllImport("kernel32", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static extern bool FreeConsole();

    [DllImport("kernel32", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static extern bool AttachConsole(uint process);

    [DllImport("kernel32", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static extern bool SetConsoleCtrlHandler(nint handler, [MarshalAs(UnmanagedType.Bool)] bool add);

    [DllImport("kernel32", SetLastError = true)]
    [DefaultDllImportSearchPaths(DllImportSearchPath.System32)]
    [return: MarshalAs(UnmanagedType.Bool)]
    private static extern bool GenerateConsoleCtrlEvent(uint controlEvent, uint processGroup);
}
