using System.Text.Json;

namespace LlamaKivi.Server;

/// <summary>Parses the JSON of requests. Names are unique, and all names and strings are Unicode text, so that reading them cannot fail.</summary>
internal static class RequestJson
{
    private static readonly JsonDocumentOptions Options = new() { MaxDepth = 128, AllowDuplicateProperties = false };

    /// <summary>Reads a body.</summary>
    /// <exception cref="ApiException">The body is not such JSON.</exception>
    public static async Task<JsonElement> ReadAsync(Stream body, CancellationToken cancellationToken)
    {
        try
        {
            using JsonDocument document = await JsonDocument.ParseAsync(body, Options, cancellationToken).ConfigureAwait(false);
            return Checked(document, null);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw Invalid(e, null);
        }
    }

    /// <summary>Parses the JSON in a field's text.</summary>
    /// <exception cref="ApiException">The text is not such JSON; the error names the field.</exception>
    public static JsonElement Parse(string text, string path)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(text, Options);
            return Checked(document, path);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw Invalid(e, path);
        }
    }

    private static JsonElement Checked(JsonDocument document, string? field)
    {
        if (JsonUnicode.FirstFault(document.RootElement) is not { } fault)
        {
            return document.RootElement.Clone();
        }

        string place = JsonFields.Shortened(fault.Path);
        string what = fault.IsName ? $"A name in {(place.Length > 0 ? place : "the root object")}" : place.Length > 0 ? place : "The text";
        throw ApiException.Bad(
            field ?? (place.Length > 0 ? place : null), field is null ? $"{what} {JsonUnicode.Reason}." : $"{field} is not valid: {what} {JsonUnicode.Reason}.", "invalid_json");
    }

    // The parser compares names to find duplicates, and reads them for that.
    private static ApiException Invalid(Exception error, string? field) => ApiException.Bad(
        field, $"{field ?? "The body"} is not valid JSON: {(error is JsonException ? error.Message : $"a name {JsonUnicode.Reason}.")}", "invalid_json");
}
