using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi;

// Saved states and session files.
public abstract partial class StatefulExecutorBase
{
    private string? _sessionFile;
    private LLamaToken[] _sessionTokens = [];

    /// <summary>Sets a file that keeps the cache between runs of the program: tokens that the first text shares with it are not prefilled again.</summary>
    /// <remarks><see cref="SaveSessionFile"/> writes the file; a missing file is not an error.</remarks>
    /// <exception cref="StateLoadException">The file is damaged or a folder, or its model or KV cache type differs.</exception>
    public StatefulExecutorBase WithSessionFile(string filename)
    {
        ArgumentException.ThrowIfNullOrEmpty(filename);
        if (Directory.Exists(filename))
        {
            throw new StateLoadException($"'{filename}' is a folder; name the session's file");
        }

        using ContextCall call = Enter();
        _sessionFile = filename;
        _sessionTokens = [];
        if (File.Exists(filename))
        {
            ExecutorBaseState state = Read(filename + ".json");
            Context.LoadState(filename, LLamaSeqId.Zero);
            Generation.Text.Hold();
            _sessionTokens = state.SessionTokens;
        }

        return this;
    }

    /// <summary>Writes the cache to a file, and its tokens to a file of the same name plus .json.</summary>
    public void SaveSessionFile(string filename)
    {
        ArgumentException.ThrowIfNullOrEmpty(filename);
        LLamaContext.SequenceState cache;
        ExecutorBaseState state;
        using (Look())
        {
            cache = Context.GetState(LLamaSeqId.Zero);
            state = GetStateData();
            state.SessionTokens = [.. Generation.Text.Tokens.Take(Generation.Text.CachedCount).Select(token => (LLamaToken)token)];
        }

        WholeFile.Write(filename, stream => stream.Write(cache.Data.Span));
        Write(filename + ".json", state);
    }

    private protected void Fill(ExecutorBaseState state)
    {
        state.Embeds = [.. Generation.Text.Tokens.Select(token => (LLamaToken)token)];
        state.PastTokensCount = Generation.Text.CachedCount;
        state.ConsumedTokensCount = Generation.Text.FirstPromptLength;
        state.WrittenCount = Generation.Text.WrittenCount;
        state.BeforeConversation = Generation.Text.BeforeConversation;
        state.Dropped = [.. Generation.Text.Tokens.Dropped];
        state.SessionFilePath = _sessionFile;
        state.SessionTokens = _sessionTokens;
    }

    private protected void Restore(ExecutorBaseState state)
    {
        using ContextCall call = Enter(nameof(LoadState));
        Generation.Text.Restore(state);
        _sessionFile = state.SessionFilePath;
        _sessionTokens = state.SessionTokens;
    }

    // The first text reuses the session's common prefix, except the text's last token, whose logits are needed.
    private Task TakeSessionAsync(ContextTurn turn, int[] prompt)
    {
        if (_sessionTokens.Length == 0 || !IsPromptRun)
        {
            return Task.CompletedTask;
        }

        int same = 0;
        while (same < Math.Min(prompt.Length - 1, _sessionTokens.Length) && prompt[same] == (int)_sessionTokens[same])
        {
            same++;
        }

        _sessionTokens = [];
        return Task.Run(() =>
        {
            using ContextCall call = Context.Handle.Enter(turn);
            Generation.Text.KeepFirst(prompt[..same]);
        });
    }

    private static ExecutorBaseState Read(string filename)
    {
        try
        {
            using FileStream stream = File.OpenRead(filename);
            return JsonSerializer.Deserialize(stream, LlamaKiviJson.Default.ExecutorBaseState) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new StateLoadException($"'{filename}' is not a saved executor: {e.Message}");
        }
    }

    private static void Write(string filename, ExecutorBaseState state) =>
        WholeFile.Write(filename, stream => JsonSerializer.Serialize(stream, state, LlamaKiviJson.Default.ExecutorBaseState));

    /// <summary>State of an executor.</summary>
    [JsonDerivedType(typeof(InteractiveExecutor.InteractiveExecutorState), "interactive")]
    [JsonDerivedType(typeof(InstructExecutor.InstructExecutorState), "instruct")]
    public class ExecutorBaseState
    {
        /// <summary>Number of tokens of <see cref="Embeds"/> in the cache.</summary>
        [JsonPropertyName("n_past")]
        public int PastTokensCount { get; set; }

        /// <summary>Number of tokens of the first text.</summary>
        [JsonPropertyName("n_consumed")]
        public int ConsumedTokensCount { get; set; }

        /// <summary>Number of tokens of the session file that are in the text.</summary>
        [JsonPropertyName("n_session_consumed")]
        public int ConsumedSessionCount { get; set; }

        /// <summary>Length of the common prefix of the session file and the text, in tokens.</summary>
        [JsonPropertyName("n_matching_session_tokens")]
        public int MatchingSessionTokensCount { get; set; }

        /// <summary>Path of the session file.</summary>
        [JsonPropertyName("path_session")]
        public string? SessionFilePath { get; set; }

        /// <summary>Tokens of the text so far.</summary>
        [JsonPropertyName("embd")]
        public LLamaToken[] Embeds { get; set; } = [];

        /// <summary>Tokens not decoded yet.</summary>
        [JsonPropertyName("embd_inps")]
        public LLamaToken[] EmbedInps { get; set; } = [];

        /// <summary>Tokens of the session file.</summary>
        [JsonPropertyName("session_tokens")]
        public LLamaToken[] SessionTokens { get; set; } = [];

        /// <summary>Last tokens, for repetition penalties.</summary>
        [JsonPropertyName("last_n_tokens")]
        public LLamaToken[] LastTokens { get; set; } = [];

        /// <summary>Maximum length of <see cref="LastTokens"/>.</summary>
        [JsonPropertyName("last_tokens_maximum_count")]
        public int LastTokensCapacity { get; set; }

        /// <summary>Mirostat state; unused, because pipelines keep their own.</summary>
        [JsonPropertyName("mirostat_mu")]
        public float? MirostatMu { get; set; }

        // Number of tokens at the end that the model generated.
        [JsonInclude]
        [JsonPropertyName("n_written")]
        internal int WrittenCount { get; set; }

        // Tokens before the conversation; null: the text is not a conversation.
        [JsonInclude]
        [JsonPropertyName("before_conversation")]
        internal int[]? BeforeConversation { get; set; }

        // Tokens that a full context dropped.
        [JsonInclude]
        [JsonPropertyName("dropped")]
        internal DroppedTokens[] Dropped { get; set; } = [];
    }
}
