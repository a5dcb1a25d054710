using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi;

/// <summary>The transforms that come along.</summary>
public class LLamaTransforms
{
    /// <summary>A conversation as lines of "Name: text".</summary>
    public class DefaultHistoryTransform : IHistoryTransform
    {
        /// <summary>Names the speakers; null: User, Assistant, System, ??.</summary>
        public DefaultHistoryTransform(
            string? userName = null, string? assistantName = null, string? systemName = null, string? unknownName = null, bool isInstructMode = false)
        {
            UserName = userName ?? "User";
            AssistantName = assistantName ?? "Assistant";
            SystemName = systemName ?? "System";
            UnknownName = unknownName ?? "??";
            IsInstructMode = isInstructMode;
        }

        /// <summary>Name of the person.</summary>
        public string UserName { get; }

        /// <summary>Name of the model.</summary>
        public string AssistantName { get; }

        /// <summary>Name of the one who sets the scene.</summary>
        public string SystemName { get; }

        /// <summary>Name of anyone else.</summary>
        public string UnknownName { get; }

        /// <summary>Whether the conversation is with an <see cref="InstructExecutor"/>, which ends an answer with a mark of its own.</summary>
        public bool IsInstructMode { get; }

        /// <inheritdoc/>
        public virtual IHistoryTransform Clone() => new DefaultHistoryTransform(UserName, AssistantName, SystemName, UnknownName, IsInstructMode);

        /// <inheritdoc/>
        /// <remarks>A name that a message brings along, as answers that the model wrote into such lines do, is not written twice.</remarks>
        public virtual string HistoryToText(ChatHistory history)
        {
            ArgumentNullException.ThrowIfNull(history);
            var text = new StringBuilder();
            foreach (ChatHistory.Message message in history.Messages)
            {
                text.Append(Name(message.AuthorRole)).Append(": ").Append(Line(message)).Append('\n');
            }

            return text.ToString();
        }

        /// <inheritdoc/>
        public virtual ChatHistory TextToHistory(AuthorRole role, string text)
        {
            var history = new ChatHistory();
            history.AddMessage(role, TrimNamesFromText(text, role));
            return history;
        }

        /// <summary>
        /// A user's text without the user's name before it; a model's without the model's name after it, and, of an executor for instructions, without
        /// the mark that asks for the next one.
        /// </summary>
        /// <remarks>An antiprompt that ended a model's text stays: it is what the model wrote.</remarks>
        public virtual string TrimNamesFromText(string text, AuthorRole role)
        {
            ArgumentNullException.ThrowIfNull(text);
            if (role == AuthorRole.User && text.StartsWith($"{UserName}:", StringComparison.Ordinal))
            {
                return text[(UserName.Length + 1)..].TrimStart();
            }

            if (role == AuthorRole.Assistant && text.EndsWith($"{AssistantName}:", StringComparison.Ordinal))
            {
                text = text[..^(AssistantName.Length + 1)].TrimEnd();
            }

            return role == AuthorRole.Assistant && IsInstructMode && text.EndsWith(InstructExecutor.AnswerEnd, StringComparison.Ordinal)
                ? text[..^InstructExecutor.AnswerEnd.Length].TrimEnd()
                : text;
        }

        // What stands behind the name: an answer of "Assistant: text\nUser:" goes on as it was written.
        private string Line(ChatHistory.Message message)
        {
            if (message.AuthorRole != AuthorRole.Assistant)
            {
                return TrimNamesFromText(message.Content, message.AuthorRole);
            }

            string text = message.Content;
            string own = $"{AssistantName}:";
            string next = $"\n{UserName}:";
            text = text.TrimStart().StartsWith(own, StringComparison.Ordinal) ? text.TrimStart()[own.Length..].TrimStart() : text;
            return text.TrimEnd().EndsWith(next, StringComparison.Ordinal) ? text.TrimEnd()[..^next.Length].TrimEnd() : text;
        }

        private string Name(AuthorRole role) => role switch
        {
            AuthorRole.User => UserName,
            AuthorRole.Assistant => AssistantName,
            AuthorRole.System => SystemName,
            _ => UnknownName,
        };
    }

    /// <summary>A text without blanks around it.</summary>
    public class NaiveTextInputTransform : ITextTransform
    {
        /// <inheritdoc/>
        public string Transform(string text)
        {
            ArgumentNullException.ThrowIfNull(text);
            return text.Trim();
        }

        /// <inheritdoc/>
        public ITextTransform Clone() => new NaiveTextInputTransform();
    }

    /// <summary>The pieces as they come.</summary>
    public class EmptyTextOutputStreamTransform : ITextStreamTransform
    {
        /// <inheritdoc/>
        public IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens) => tokens;

        /// <inheritdoc/>
        public ITextStreamTransform Clone() => new EmptyTextOutputStreamTransform();
    }

    /// <summary>The text without some words in it, which may come in pieces.</summary>
    public class KeywordTextOutputStreamTransform : ITextStreamTransform
    {
        /// <summary>Names the words.</summary>
        /// <param name="keywords">What to leave out.</param>
        /// <param name="maxKeywordLength">Characters to hold back while a word may be coming.</param>
        /// <param name="removeAllMatchedTokens">Whether everything held back goes with a word, and not the word alone.</param>
        [JsonConstructor]
        public KeywordTextOutputStreamTransform(HashSet<string> keywords, int maxKeywordLength, bool removeAllMatchedTokens)
        {
            ArgumentNullException.ThrowIfNull(keywords);
            Keywords = [.. keywords.Where(keyword => keyword.Length > 0)];
            MaxKeywordLength = maxKeywordLength;
            RemoveAllMatchedTokens = removeAllMatchedTokens;
        }

        /// <summary>Names the words; as many characters more than the longest are held back as <paramref name="redundancyLength"/> says.</summary>
        public KeywordTextOutputStreamTransform(IEnumerable<string> keywords, int redundancyLength = 3, bool removeAllMatchedTokens = false)
            : this([.. keywords], keywords.Select(keyword => keyword.Length).DefaultIfEmpty().Max() + redundancyLength, removeAllMatchedTokens)
        {
        }

        /// <summary>What is left out.</summary>
        public HashSet<string> Keywords { get; }

        /// <summary>Characters held back while a word may be coming.</summary>
        public int MaxKeywordLength { get; }

        /// <summary>Whether everything held back goes with a word.</summary>
        public bool RemoveAllMatchedTokens { get; }

        /// <inheritdoc/>
        public ITextStreamTransform Clone() => new KeywordTextOutputStreamTransform(Keywords, MaxKeywordLength, RemoveAllMatchedTokens);

        /// <inheritdoc/>
        public async IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens)
        {
            ArgumentNullException.ThrowIfNull(tokens);
            var held = new Queue<string>();
            await foreach (string piece in tokens.ConfigureAwait(false))
            {
                held.Enqueue(piece);
                string text = string.Concat(held);
                if (Keywords.Any(keyword => text.Contains(keyword, StringComparison.Ordinal)))
                {
                    held.Clear();
                    string rest = RemoveAllMatchedTokens ? "" : Keywords.Aggregate(text, (t, keyword) => t.Replace(keyword, "", StringComparison.Ordinal));
                    if (rest.Length > 0)
                    {
                        held.Enqueue(rest);
                    }
                }

                for (int length = held.Sum(p => p.Length); length > MaxKeywordLength && held.Count > 0; length = held.Sum(p => p.Length))
                {
                    yield return held.Dequeue();
                }
            }

            foreach (string piece in held)
            {
                yield return piece;
            }
        }
    }
}
