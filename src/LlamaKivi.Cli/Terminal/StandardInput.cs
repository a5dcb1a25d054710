namespace LlamaKivi.Cli;

/// <summary>Standard input, which a shell may have closed (<c>&lt;&amp;-</c>).</summary>
internal static class StandardInput
{
    private const string Descriptors = "/proc/self/fdinfo";
    private const string Flags = "flags:";
    private const int CloseOnExec = 0x80000;  // O_CLOEXEC

    /// <summary>Opens standard input.</summary>
    /// <exception cref="UsageException">It is closed.</exception>
    public static Stream Open()
    {
        CheckOpen();
        return Console.OpenStandardInput();
    }

    /// <summary>Checks that the program has a standard input.</summary>
    /// <exception cref="UsageException">It is closed.</exception>
    public static void CheckOpen()
    {
        if (IsClosed())
        {
            throw new UsageException("standard input is closed; give the text in the arguments or in a file, or pipe it in");
        }
    }

    // If descriptor 0 is closed at the start, the runtime's next descriptor gets number 0: a pipe to itself, from which a read never returns.
    // An inherited descriptor cannot have the close-on-exec flag, and the runtime sets it on all of its own. Other systems than Linux have no such list of flags.
    private static bool IsClosed()
    {
        if (!OperatingSystem.IsLinux() || !Directory.Exists(Descriptors))
        {
            return false;
        }

        try
        {
            string flags = File.ReadLines($"{Descriptors}/0").First(line => line.StartsWith(Flags, StringComparison.Ordinal))[Flags.Length..].Trim();
            return (Convert.ToInt64(flags, 8) & CloseOnExec) != 0;
        }
        catch (FileNotFoundException)
        {
            return true;
        }
    }
}
