using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace LlamaKivi.Common;

/// <summary>Who wrote a message.</summary>
public enum AuthorRole
{
    /// <summary>Unknown.</summary>
    Unknown = -1,

    /// <summary>Instructions to the model, before the first turn.</summary>
    System = 0,

    /// <summary>The user.</summary>
    User = 1,

    /// <summary>The model.</summary>
    Assistant = 2,
}

/// <summary>The messages of a conversation, the oldest first.</summary>
public class ChatHistory
{
    /// <summary>Creates an empty history.</summary>
    [JsonConstructor]
    public ChatHistory()
    {
    }

    /// <summary>Creates a history with messages.</summary>
    public ChatHistory(Message[] messageHistory)
    {
        ArgumentNullException.ThrowIfNull(messageHistory);
        Messages = [.. messageHistory];
    }

    /// <summary>The messages.</summary>
    [JsonPropertyName("messages")]
    public List<Message> Messages { get; set; } = [];

    /// <summary>Parses JSON that <see cref="ToJson"/> wrote. The case of property and role names is ignored; a role may be a number.</summary>
    /// <exception cref="JsonException">The text is not a history, or a role is not an <see cref="AuthorRole"/>.</exception>
    public static ChatHistory? FromJson(string json) => JsonSerializer.Deserialize(json, LlamaKiviJson.Default.ChatHistory);

    /// <summary>Adds a message at the end.</summary>
    public void AddMessage(AuthorRole authorRole, string content) => Messages.Add(new Message(authorRole, content));

    /// <summary>Writes the history as JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, LlamaKiviJson.Default.ChatHistory);

    /// <summary>One message.</summary>
    public class Message
    {
        /// <summary>Creates a message.</summary>
        public Message(AuthorRole authorRole, string content)
        {
            AuthorRole = authorRole;
            Content = content;
        }

        /// <summary>Role of the author.</summary>
        [JsonConverter(typeof(AuthorRoleConverter))]
        [JsonPropertyName("author_role")]
        public AuthorRole AuthorRole { get; set; }

        /// <summary>Text of the message.</summary>
        [JsonPropertyName("content")]
        public string Content { get; set; }
    }
}

/// <summary>Writes a role as its name. Reads a name in any case, or a number.</summary>
internal sealed class AuthorRoleConverter : JsonConverter<AuthorRole>
{
    public override AuthorRole Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        string given = reader.TokenType switch
        {
            JsonTokenType.String => reader.GetString()!,
            JsonTokenType.Number => reader.GetDouble().ToString(CultureInfo.InvariantCulture),
            _ => $"{reader.TokenType}",
        };

        // TryParse also accepts numbers outside the enumeration.
        return Enum.TryParse(given, ignoreCase: true, out AuthorRole role) && Enum.IsDefined(role)
            ? role
            : throw new JsonException($"'{given}' is not a role; use one of: {string.Join(", ", Enum.GetValues<AuthorRole>().Select(known => $"{known} ({known:D})"))}.");
    }

    public override void Write(Utf8JsonWriter writer, AuthorRole value, JsonSerializerOptions options) => writer.WriteStringValue(value.ToString());
}
