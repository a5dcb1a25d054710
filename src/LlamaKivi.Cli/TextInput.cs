using System.Text;

namespace LlamaKivi.Cli;

/// <summary>Texts that commands read: from a file, or from standard input, which is named -.</summary>
internal static class TextInput
{
    public const string Standard = "-";

    /// <summary>What --file's help says of it.</summary>
    public const string Hint = "-: standard input";

    /// <summary>A file's text, as it is.</summary>
    public static async Task<string> ReadAsync(string path, CancellationToken cancellationToken)
    {
        if (path != Standard)
        {
            return await File.ReadAllTextAsync(path, cancellationToken).ConfigureAwait(false);
        }

        using var reader = new StreamReader(Console.OpenStandardInput(), Encoding.UTF8);
        return await reader.ReadToEndAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>A file's bytes, as they are.</summary>
    public static async Task<byte[]> ReadBytesAsync(string path, CancellationToken cancellationToken)
    {
        if (path != Standard)
        {
            return await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false);
        }

        using Stream input = Console.OpenStandardInput();
        using var bytes = new MemoryStream();
        await input.CopyToAsync(bytes, cancellationToken).ConfigureAwait(false);
        return bytes.ToArray();
    }

    /// <summary>The file that a prompt comes from: the one given, or what is piped in where neither it nor a prompt is; null for a prompt.</summary>
    /// <exception cref="UsageException">Both are given, or there is nothing.</exception>
    public static string? Source(string? prompt, string? file) => (prompt, file) switch
    {
        (not null, not null) => throw new UsageException("-p and -f are both given; give one"),
        (null, null) when !Console.IsInputRedirected => throw new UsageException("nothing to read; give a text with -p, a file with -f, or pipe one in"),
        (null, null) => Standard,
        _ => file,
    };

    /// <summary>A prompt. The line break that editors and echo put at the end is no part of it.</summary>
    public static async Task<string> PromptAsync(string? prompt, string? file, CancellationToken cancellationToken)
    {
        if (Source(prompt, file) is not { } source)
        {
            return prompt!;
        }

        string text = await ReadAsync(source, cancellationToken).ConfigureAwait(false);
        text = text.EndsWith("\r\n", StringComparison.Ordinal) ? text[..^2] : text.EndsWith('\n') ? text[..^1] : text;
        return text.Length > 0 || prompt is not null ? text : throw new UsageException(source == Standard
            ? "nothing to continue: standard input is empty; give a prompt with -p or a file with -f, or pipe one in"
            : $"nothing to continue: {source} is empty");
    }
}
