using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;

namespace LlamaKivi;

/// <summary>Built-in transforms.</summary>
public class LLamaTransforms
{
    /// <summary>Formats a conversation as lines of "Name: text".</summary>
    public class DefaultHistoryTransform : IHistoryTransform
    {
        /// <summary>Sets the names of the roles; null: User, Assistant, System, ??.</summary>
        public DefaultHistoryTransform(
            string? userName = null, string? assistantName = null, string? systemName = null, string? unknownName = null, bool isInstructMode = false)
        {
            UserName = userName ?? "User";
            AssistantName = assistantName ?? "Assistant";
            SystemName = systemName ?? "System";
            UnknownName = unknownName ?? "??";
            IsInstructMode = isInstructMode;
        }

        /// <summary>Name of <see cref="AuthorRole.User"/>.</summary>
        public string UserName { get; }

        /// <summary>Name of <see cref="AuthorRole.Assistant"/>.</summary>
        public string AssistantName { get; }

        /// <summary>Name of <see cref="AuthorRole.System"/>.</summary>
        public string SystemName { get; }

        /// <summary>Name of any other role.</summary>
        public string UnknownName { get; }

        /// <summary>Whether the executor is an <see cref="InstructExecutor"/>, whose answers end with the marker of the next instruction.</summary>
        public bool IsInstructMode { get; }

        /// <inheritdoc/>
        public virtual IHistoryTransform Clone() => new DefaultHistoryTransform(UserName, AssistantName, SystemName, UnknownName, IsInstructMode);

        /// <inheritdoc/>
        /// <remarks>A name that a message already begins with, as in generated answers, is not repeated.</remarks>
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
        /// Removes the user's name from the start of a user message. Removes the assistant's name from the end of an answer and, in instruct mode,
        /// the marker of the next instruction.
        /// </summary>
        /// <remarks>An antiprompt at the end of an answer stays, because the model generated it.</remarks>
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

        // The text after the name. An answer "Assistant: text\nUser:" loses both names, because the lines around it repeat them.
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

    /// <summary>Trims white space from a text.</summary>
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

    /// <summary>Passes the pieces through unchanged.</summary>
    public class EmptyTextOutputStreamTransform : ITextStreamTransform
    {
        /// <inheritdoc/>
        public IAsyncEnumerable<string> TransformAsync(IAsyncEnumerable<string> tokens) => tokens;

        /// <inheritdoc/>
        public ITextStreamTransform Clone() => new EmptyTextOutputStreamTransform();
    }

    /// <summary>Removes keywords from the text, also those that span several pieces.</summary>
    public class KeywordTextOutputStreamTransform : ITextStreamTransform
    {
        /// <summary>Sets the keywords.</summary>
        /// <param name="keywords">Keywords to remove.</param>
        /// <param name="maxKeywordLength">Characters to hold back, because a keyword may be incomplete.</param>
        /// <param name="removeAllMatchedTokens">Whether a keyword removes all of the text that is held back, instead of the keyword only.</param>
        [JsonConstructor]
        public KeywordTextOutputStreamTransform(HashSet<string> keywords, int maxKeywordLength, bool removeAllMatchedTokens)
        {
            ArgumentNullException.ThrowIfNull(keywords);
            Keywords = [.. keywords.Where(keyword => keyword.Length > 0)];
            MaxKeywordLength = maxKeywordLength;
            RemoveAllMatchedTokens = removeAllMatchedTokens;
        }

        /// <summary>Sets the keywords. Held back are the length of the longest keyword plus <paramref name="redundancyLength"/> characters.</summary>
        public KeywordTextOutputStreamTransform(IEnumerable<string> keywords, int redundancyLength = 3, bool removeAllMatchedTokens = false)
            : this([.. keywords], keywords.Select(keyword => keyword.Length).DefaultIfEmpty().Max() + redundancyLength, removeAllMatchedTokens)
        {
        }

        /// <summary>Keywords to remove.</summary>
        public HashSet<string> Keywords { get; }

        /// <summary>Characters held back, because a keyword may be incomplete.</summary>
        public int MaxKeywordLength { get; }

        /// <summary>Whether a keyword removes all of the text that is held back.</summary>
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
