using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace LlamaKivi.Common;

/// <summary>Who wrote a message.</summary>
public enum AuthorRole
{
    /// <summary>Not known.</summary>
    Unknown = -1,

    /// <summary>The one who sets the scene.</summary>
    System = 0,

    /// <summary>The person.</summary>
    User = 1,

    /// <summary>The model.</summary>
    Assistant = 2,
}

/// <summary>The messages of a conversation, the oldest first.</summary>
public class ChatHistory
{
    /// <summary>Makes an empty history.</summary>
    [JsonConstructor]
    public ChatHistory()
    {
    }

    /// <summary>Makes a history of messages.</summary>
    public ChatHistory(Message[] messageHistory)
    {
        ArgumentNullException.ThrowIfNull(messageHistory);
        Messages = [.. messageHistory];
    }

    /// <summary>The messages.</summary>
    [JsonPropertyName("messages")]
    public List<Message> Messages { get; set; } = [];

    /// <summary>Reads what <see cref="ToJson"/> wrote. Names of properties and roles may be in any case, and roles numbers.</summary>
    /// <exception cref="JsonException">The text is something else, or a role is none of <see cref="AuthorRole"/>.</exception>
    public static ChatHistory? FromJson(string json) => JsonSerializer.Deserialize(json, LlamaKiviJson.Default.ChatHistory);

    /// <summary>Adds a message at the end.</summary>
    public void AddMessage(AuthorRole authorRole, string content) => Messages.Add(new Message(authorRole, content));

    /// <summary>Writes the history as JSON.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, LlamaKiviJson.Default.ChatHistory);

    /// <summary>One message.</summary>
    public class Message
    {
        /// <summary>Makes a message.</summary>
        public Message(AuthorRole authorRole, string content)
        {
            AuthorRole = authorRole;
            Content = content;
        }

        /// <summary>Who wrote it.</summary>
        [JsonConverter(typeof(AuthorRoleConverter))]
        [JsonPropertyName("author_role")]
        public AuthorRole AuthorRole { get; set; }

        /// <summary>Its text.</summary>
        [JsonPropertyName("content")]
        public string Content { get; set; }
    }
}

/// <summary>A role as its name; read in any case, or from its number.</summary>
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

        // TryParse takes numbers that are no role, too.
        return Enum.TryParse(given, ignoreCase: true, out AuthorRole role) && Enum.IsDefined(role)
            ? role
            : throw new JsonException($"'{given}' is no role; there are: {string.Join(", ", Enum.GetValues<AuthorRole>().Select(known => $"{known} ({known:D})"))}.");
    }

    public override void Write(Utf8JsonWriter writer, AuthorRole value, JsonSerializerOptions options) => writer.WriteStringValue(value.ToString());
}
