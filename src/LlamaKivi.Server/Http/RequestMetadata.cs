using System.Text.Json;

namespace LlamaKivi.Server;

/// <summary>The field <c>metadata</c>, which answers repeat, with OpenAI's limits.</summary>
internal static class RequestMetadata
{
    private const int MostPairs = 16;
    private const int MostKeyCharacters = 64;
    private const int MostValueCharacters = 512;

    /// <summary>Reads the field; null: absent.</summary>
    public static JsonElement? Read(JsonFields body)
    {
        if (body.Object("metadata") is not { Element: var metadata } fields)
        {
            return null;
        }

        int count = metadata.GetPropertyCount();
        if (count > MostPairs)
        {
            throw ApiException.Bad("metadata", $"metadata has {count} pairs; at most {MostPairs} are allowed.", "invalid_value");
        }

        foreach (JsonProperty pair in metadata.EnumerateObject())
        {
            string path = JsonFields.Shortened(fields.Path(pair.Name));
            int length = JsonFields.Text(pair.Value, path).Length;
            if (pair.Name.Length > MostKeyCharacters)
            {
                throw ApiException.Bad(path, $"A key of metadata has {pair.Name.Length} characters; at most {MostKeyCharacters} are allowed.", "invalid_value");
            }

            if (length > MostValueCharacters)
            {
                throw ApiException.Bad(path, $"{path} has {length} characters; at most {MostValueCharacters} are allowed.", "invalid_value");
            }
        }

        return metadata;
    }
}
