using System.Text.Json;
using System.Text.Json.Serialization;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi;

// What states and session files hold.
public abstract partial class StatefulExecutorBase
{
    private string? _sessionFile;
    private LLamaToken[] _sessionTokens = [];

    /// <summary>Names a file in which the cache is kept between runs of the program: a first text that begins with its tokens is not read again.</summary>
    /// <remarks>The file is written by <see cref="SaveSessionFile"/>; one that is not there yet is no error.</remarks>
    /// <exception cref="StateLoadException">The file is damaged, or belongs to another model or kind of KV cache.</exception>
    public StatefulExecutorBase WithSessionFile(string filename)
    {
        ArgumentException.ThrowIfNullOrEmpty(filename);
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

    /// <summary>Writes what the cache holds, and its tokens beside it in a file of the same name with .json.</summary>
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

    // A first text that begins as the session does goes on from the cache: all but its last token, whose logits are needed.
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
            throw new StateLoadException($"'{filename}' is no saved executor: {e.Message}");
        }
    }

    private static void Write(string filename, ExecutorBaseState state) =>
        WholeFile.Write(filename, stream => JsonSerializer.Serialize(stream, state, LlamaKiviJson.Default.ExecutorBaseState));

    /// <summary>Where an executor is in its text.</summary>
    [JsonDerivedType(typeof(InteractiveExecutor.InteractiveExecutorState), "interactive")]
    [JsonDerivedType(typeof(InstructExecutor.InstructExecutorState), "instruct")]
    public class ExecutorBaseState
    {
        /// <summary>Tokens of <see cref="Embeds"/> that are in the cache.</summary>
        [JsonPropertyName("n_past")]
        public int PastTokensCount { get; set; }

        /// <summary>Tokens of the first text.</summary>
        [JsonPropertyName("n_consumed")]
        public int ConsumedTokensCount { get; set; }

        /// <summary>Tokens of the session file that are in the text.</summary>
        [JsonPropertyName("n_session_consumed")]
        public int ConsumedSessionCount { get; set; }

        /// <summary>Tokens the session file and the text have in common.</summary>
        [JsonPropertyName("n_matching_session_tokens")]
        public int MatchingSessionTokensCount { get; set; }

        /// <summary>The session file.</summary>
        [JsonPropertyName("path_session")]
        public string? SessionFilePath { get; set; }

        /// <summary>Tokens of the text so far.</summary>
        [JsonPropertyName("embd")]
        public LLamaToken[] Embeds { get; set; } = [];

        /// <summary>Tokens not read yet.</summary>
        [JsonPropertyName("embd_inps")]
        public LLamaToken[] EmbedInps { get; set; } = [];

        /// <summary>Tokens of the session file.</summary>
        [JsonPropertyName("session_tokens")]
        public LLamaToken[] SessionTokens { get; set; } = [];

        /// <summary>The last tokens, for penalties.</summary>
        [JsonPropertyName("last_n_tokens")]
        public LLamaToken[] LastTokens { get; set; } = [];

        /// <summary>How many those are at most.</summary>
        [JsonPropertyName("last_tokens_maximum_count")]
        public int LastTokensCapacity { get; set; }

        /// <summary>Mirostat's state; pipelines keep their own.</summary>
        [JsonPropertyName("mirostat_mu")]
        public float? MirostatMu { get; set; }

        // Last tokens that the model wrote.
        [JsonInclude]
        [JsonPropertyName("n_written")]
        internal int WrittenCount { get; set; }

        // Tokens before the conversation that the text is; null: it is none.
        [JsonInclude]
        [JsonPropertyName("before_conversation")]
        internal int[]? BeforeConversation { get; set; }

        // What a full context lost.
        [JsonInclude]
        [JsonPropertyName("dropped")]
        internal DroppedTokens[] Dropped { get; set; } = [];
    }
}
