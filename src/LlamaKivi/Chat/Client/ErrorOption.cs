namespace LlamaKivi;

/// <summary>The option of a chat call that an error is about, so that a server can name the field that it came from.</summary>
internal static class ErrorOption
{
    /// <summary>The messages of the call, which are no option.</summary>
    public const string Messages = "messages";

    private const string Key = "LlamaKivi.Option";

    /// <summary>Notes the option, a path of properties of <see cref="Microsoft.Extensions.AI.ChatOptions"/>.</summary>
    public static TException Mark<TException>(TException error, string option)
        where TException : Exception
    {
        error.Data[Key] = option;
        return error;
    }

    /// <summary>The option; null: unknown.</summary>
    public static string? Of(Exception error) => error.Data[Key] as string;
}
