using System.Text.Json;
using LlamaKivi.Common;

namespace LlamaKivi.Tests.Common;

/// <summary>Histories as JSON.</summary>
public class ChatHistoryTests
{
    private static string Of(string role) => $$"""{"messages":[{"author_role":{{role}},"content":"x"}]}""";

    [Fact]
    public void Property_names_are_those_of_saved_files()
    {
        string json = new ChatHistory([new(AuthorRole.System, "é"), new(AuthorRole.Unknown, "u")]).ToJson();
        using JsonDocument document = JsonDocument.Parse(json);
        JsonElement messages = document.RootElement.GetProperty("messages");
        Assert.Equal(2, messages.GetArrayLength());
        Assert.Equal("System", messages[0].GetProperty("author_role").GetString());
        Assert.Equal("é", messages[0].GetProperty("content").GetString());
        Assert.Equal("Unknown", messages[1].GetProperty("author_role").GetString());
        Assert.Equal(json, ChatHistory.FromJson(json)!.ToJson());
    }

    [Theory]
    [InlineData("\"User\"", AuthorRole.User)]
    [InlineData("\"ASSISTANT\"", AuthorRole.Assistant)]
    [InlineData("\"system\"", AuthorRole.System)]
    [InlineData("1", AuthorRole.User)]
    [InlineData("-1", AuthorRole.Unknown)]
    [InlineData("\"2\"", AuthorRole.Assistant)]
    public void Roles_are_read_from_names_in_any_case_and_from_numbers(string role, AuthorRole expected)
    {
        ChatHistory.Message message = ChatHistory.FromJson(Of(role))!.Messages.Single();
        Assert.Equal((expected, "x"), (message.AuthorRole, message.Content));
        Assert.Equal(expected, JsonSerializer.Deserialize<ChatHistory>(Of(role))!.Messages.Single().AuthorRole);
    }

    [Theory]
    [InlineData("\"nobody\"", "'nobody' is not a role")]
    [InlineData("7", "'7' is not a role")]
    [InlineData("1.5", "'1.5' is not a role")]
    [InlineData("null", "'Null' is not a role")]
    [InlineData("\"User, Assistant\"", "is not a role; use one of: System (0), User (1), Assistant (2), Unknown (-1).")]
    public void Invalid_roles_are_named_in_the_error(string role, string expected) =>
        Assert.Contains(expected, Assert.Throws<JsonException>(() => ChatHistory.FromJson(Of(role))).Message, StringComparison.Ordinal);

    [Fact]
    public void Files_of_earlier_versions_are_read()
    {
        ChatHistory history = ChatHistory.FromJson("""{"Messages":[{"author_role":"User","content":"x"}]}""")!;
        Assert.Equal("x", history.Messages.Single().Content);
    }

    [Fact]
    public void Invalid_json_is_an_error() => Assert.Throws<JsonException>(() => ChatHistory.FromJson("["));
}
