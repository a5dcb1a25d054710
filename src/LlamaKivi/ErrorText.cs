namespace LlamaKivi;

/// <summary>Texts of exceptions, for users.</summary>
internal static class ErrorText
{
    /// <summary>The message without <c>(Parameter 'x')</c>, which <see cref="ArgumentException"/> appends.</summary>
    public static string Of(Exception error) => error.Message.Split(" (Parameter '")[0];
}
