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
    public List<Message> Messages { get; set; } = [];

    /// <summary>Reads what <see cref="ToJson"/> wrote.</summary>
    /// <exception cref="JsonException">The text is something else.</exception>
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
        [JsonConverter(typeof(JsonStringEnumConverter<AuthorRole>))]
        [JsonPropertyName("author_role")]
        public AuthorRole AuthorRole { get; set; }

        /// <summary>Its text.</summary>
        [JsonPropertyName("content")]
        public string Content { get; set; }
    }
}
