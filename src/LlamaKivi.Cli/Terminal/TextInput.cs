using System.Text;

namespace LlamaKivi.Cli;

/// <summary>Reads text from a file, or from standard input for the name "-".</summary>
internal static class TextInput
{
    public const string Standard = "-";

    /// <summary>Part of the help text of --file.</summary>
    public const string Hint = "-: standard input";

    /// <summary>Text of a file, unchanged.</summary>
    public static async Task<string> ReadAsync(string path, CancellationToken cancellationToken)
    {
        if (path != Standard)
        {
            CheckIsNoFolder(path);
            return await File.ReadAllTextAsync(path, cancellationToken).ConfigureAwait(false);
        }

        using var reader = new StreamReader(StandardInput.Open(), Encoding.UTF8);
        return await reader.ReadToEndAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Bytes of a file, unchanged.</summary>
    public static async Task<byte[]> ReadBytesAsync(string path, CancellationToken cancellationToken)
    {
        if (path != Standard)
        {
            CheckIsNoFolder(path);
            return await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false);
        }

        using Stream input = StandardInput.Open();
        using var bytes = new MemoryStream();
        await input.CopyToAsync(bytes, cancellationToken).ConfigureAwait(false);
        return bytes.ToArray();
    }

    /// <summary>File to read the prompt from: the given one, or standard input if it is redirected and no prompt is given; null: the prompt itself is given.</summary>
    /// <exception cref="UsageException">Both or neither are given.</exception>
    public static string? Source(string? prompt, string? file) => (prompt, file) switch
    {
        (not null, not null) => throw new UsageException("-p and -f are both given; specify only one"),
        (null, null) when !Console.IsInputRedirected => throw new UsageException("nothing to read; specify a text with -p or a file with -f, or pipe a text in"),
        (null, null) => Standard,
        _ => file,
    };

    // Opening a folder as a file fails with "access denied".
    private static void CheckIsNoFolder(string path)
    {
        if (Directory.Exists(path))
        {
            throw new UsageException($"cannot read '{path}': it is a folder; name a text file");
        }
    }

    /// <summary>The prompt, without the line break at its end that editors and echo add.</summary>
    public static async Task<string> PromptAsync(string? prompt, string? file, CancellationToken cancellationToken)
    {
        if (Source(prompt, file) is not { } source)
        {
            return prompt!;
        }

        string text = await ReadAsync(source, cancellationToken).ConfigureAwait(false);
        text = text.EndsWith("\r\n", StringComparison.Ordinal) ? text[..^2] : text.EndsWith('\n') ? text[..^1] : text;
        return text.Length > 0 || prompt is not null ? text : throw new UsageException(source == Standard
            ? "nothing to continue: standard input is empty; specify a prompt with -p or a file with -f, or pipe a text in"
            : $"nothing to continue: {source} is empty");
    }
}
