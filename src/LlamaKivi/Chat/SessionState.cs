using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>A snapshot of a chat session: KV cache, executor state, messages and transforms.</summary>
public record SessionState
{
    /// <summary>Creates a snapshot. Lists and transforms are copied.</summary>
    public SessionState(
        LLamaContext.State? contextState,
        StatefulExecutorBase.ExecutorBaseState executorState,
        ChatHistory history,
        List<ITextTransform> inputTransformPipeline,
        ITextStreamTransform outputTransform,
        IHistoryTransform historyTransform)
    {
        ArgumentNullException.ThrowIfNull(history);
        ArgumentNullException.ThrowIfNull(inputTransformPipeline);
        ArgumentNullException.ThrowIfNull(outputTransform);
        ArgumentNullException.ThrowIfNull(historyTransform);
        ContextState = contextState;
        ExecutorState = executorState;
        History = [.. history.Messages];
        InputTransformPipeline = [.. inputTransformPipeline.Select(transform => transform.Clone())];
        OutputTransform = outputTransform.Clone();
        HistoryTransform = historyTransform.Clone();
    }

    /// <summary>State of the executor.</summary>
    public StatefulExecutorBase.ExecutorBaseState? ExecutorState { get; set; }

    /// <summary>State of the KV cache; null: empty.</summary>
    public LLamaContext.State? ContextState { get; set; }

    /// <summary>The session's input transforms.</summary>
    public ITextTransform[] InputTransformPipeline { get; set; }

    /// <summary>The session's output transform.</summary>
    public ITextStreamTransform OutputTransform { get; set; }

    /// <summary>The session's history transform.</summary>
    public IHistoryTransform HistoryTransform { get; set; }

    /// <summary>The messages.</summary>
    public ChatHistory.Message[] History { get; set; }

    /// <summary>Loads a folder that <see cref="Save"/> wrote.</summary>
    /// <remarks>
    /// The files only name transforms that cannot be serialized: <see cref="ChatSession.LoadSession(SessionState, bool)"/> recreates the model's chat template and takes transforms of other libraries from
    /// the session.
    /// </remarks>
    /// <exception cref="StateLoadException">A file is missing or invalid.</exception>
    public static SessionState Load(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string File_(string name) => Path.Combine(path, name);
        StatefulExecutorBase.ExecutorBaseState executor = Read(File_(ChatSession.EXECUTOR_STATE_FILENAME), LlamaKiviJson.Default.ExecutorBaseState)
            ?? throw new StateLoadException($"'{File_(ChatSession.EXECUTOR_STATE_FILENAME)}' does not exist: '{path}' is not a saved session.");
        LLamaContext.State? context = null;
        if (File.Exists(File_(ChatSession.MODEL_STATE_FILENAME)))
        {
            string file = File_(ChatSession.MODEL_STATE_FILENAME);
            StateFile.Read(file, () =>
            {
                using FileStream stream = File.OpenRead(file);
                context = LLamaContext.State.Load(stream);
            });
        }

        return new SessionState(
            context,
            executor,
            Read(File_(ChatSession.HISTORY_STATE_FILENAME), LlamaKiviJson.Default.ChatHistory) ?? new ChatHistory(),
            [.. Read(File_(ChatSession.INPUT_TRANSFORM_FILENAME), LlamaKiviJson.Default.ITextTransformArray) ?? []],
            Read(File_(ChatSession.OUTPUT_TRANSFORM_FILENAME), LlamaKiviJson.Default.ITextStreamTransform) ?? new ForeignTransform(null),
            Read(File_(ChatSession.HISTORY_TRANSFORM_FILENAME), LlamaKiviJson.Default.IHistoryTransform) ?? new ForeignTransform(null));
    }

    /// <summary>Saves the state to a folder, which is created. Each file is written atomically.</summary>
    public void Save(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        Directory.CreateDirectory(path);
        string model = Path.Combine(path, ChatSession.MODEL_STATE_FILENAME);
        if (ContextState is null)
        {
            File.Delete(model);
        }
        else
        {
            WholeFile.Write(model, ContextState.Save);
        }

        Write(ChatSession.EXECUTOR_STATE_FILENAME, ExecutorState ?? throw new InvalidOperationException("ExecutorState is null; set it before saving."), LlamaKiviJson.Default.ExecutorBaseState);
        Write(ChatSession.HISTORY_STATE_FILENAME, new ChatHistory(History), LlamaKiviJson.Default.ChatHistory);
        Write(ChatSession.INPUT_TRANSFORM_FILENAME, [.. InputTransformPipeline.Select(SavedTransforms.ToSave)], LlamaKiviJson.Default.ITextTransformArray);
        Write(ChatSession.OUTPUT_TRANSFORM_FILENAME, SavedTransforms.ToSave(OutputTransform), LlamaKiviJson.Default.ITextStreamTransform);
        Write(ChatSession.HISTORY_TRANSFORM_FILENAME, SavedTransforms.ToSave(HistoryTransform), LlamaKiviJson.Default.IHistoryTransform);

        void Write<T>(string name, T value, JsonTypeInfo<T> type) =>
            WholeFile.Write(Path.Combine(path, name), stream => JsonSerializer.Serialize(stream, value, type));
    }

    private static T? Read<T>(string filename, JsonTypeInfo<T> type)
        where T : class
    {
        if (!File.Exists(filename))
        {
            return null;
        }

        try
        {
            using FileStream stream = File.OpenRead(filename);
            return JsonSerializer.Deserialize(stream, type);
        }
        catch (JsonException e)
        {
            throw new StateLoadException($"'{filename}' is not a file of a saved session: {e.Message}");
        }
    }
}
