using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>A conversation with a model: keeps the messages and decodes them with an executor.</summary>
/// <remarks>
/// Before each turn the history is compared with the executor's cache, token by token. The common prefix stays cached; only the rest is decoded. So messages may be
/// added, replaced and removed between turns. A stateless executor decodes the whole conversation each time. A session without messages continues the executor's text; otherwise text
/// that is not in the history is removed from the cache.
/// </remarks>
public partial class ChatSession
{
    /// <summary>File name of the KV cache state.</summary>
    public const string MODEL_STATE_FILENAME = "ModelState.st";

    /// <summary>File name of the executor's state.</summary>
    public const string EXECUTOR_STATE_FILENAME = "ExecutorState.json";

    /// <summary>File name of the history.</summary>
    public const string HISTORY_STATE_FILENAME = "ChatHistory.json";

    /// <summary>File name of the input transforms.</summary>
    public const string INPUT_TRANSFORM_FILENAME = "InputTransform.json";

    /// <summary>File name of the output transform.</summary>
    public const string OUTPUT_TRANSFORM_FILENAME = "OutputTransform.json";

    /// <summary>File name of the history transform.</summary>
    public const string HISTORY_TRANSFORM_FILENAME = "HistoryTransform.json";

    /// <summary>Transforms the generated text.</summary>
    public ITextStreamTransform OutputTransform = new LLamaTransforms.EmptyTextOutputStreamTransform();

    /// <summary>Creates a session without messages.</summary>
    public ChatSession(ILLamaExecutor executor)
    {
        ArgumentNullException.ThrowIfNull(executor);
        Executor = executor;
    }

    /// <summary>Creates a session with messages. They are decoded together with the first new message.</summary>
    public ChatSession(ILLamaExecutor executor, ChatHistory history)
        : this(executor)
    {
        ArgumentNullException.ThrowIfNull(history);
        History = history;
    }

    /// <summary>The executor that decodes and generates.</summary>
    public ILLamaExecutor Executor { get; private set; }

    /// <summary>The messages.</summary>
    public ChatHistory History { get; private set; } = new();

    /// <summary>Converts the conversation to a prompt.</summary>
    public IHistoryTransform HistoryTransform { get; set; } = new LLamaTransforms.DefaultHistoryTransform();

    /// <summary>Transforms of a user's message, applied in order.</summary>
    public List<ITextTransform> InputTransformPipeline { get; set; } = [];

    /// <summary>Creates a session with messages and decodes them immediately.</summary>
    /// <exception cref="ArgumentException">The executor is stateless.</exception>
    public static async Task<ChatSession> InitializeSessionFromHistoryAsync(
        ILLamaExecutor executor, ChatHistory history, IHistoryTransform? transform = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(history);
        if (executor is not StatefulExecutorBase stateful)
        {
            throw new ArgumentException("The executor must be stateful, such as InteractiveExecutor.", nameof(executor));
        }

        var session = new ChatSession(executor, history);
        if (transform is not null)
        {
            session.HistoryTransform = transform;
        }

        if (history.Messages.Count > 0)
        {
            await stateful.PrefillAsync(session.ToRead(forAnswer: false, history.Messages.Count), cancellationToken).ConfigureAwait(false);
            session._hasBegun = true;
        }

        return session;
    }

    /// <summary>Sets <see cref="HistoryTransform"/>.</summary>
    public ChatSession WithHistoryTransform(IHistoryTransform transform)
    {
        HistoryTransform = transform;
        return this;
    }

    /// <summary>Adds a transform to <see cref="InputTransformPipeline"/>.</summary>
    public ChatSession AddInputTransform(ITextTransform transform)
    {
        InputTransformPipeline.Add(transform);
        return this;
    }

    /// <summary>Sets <see cref="OutputTransform"/>.</summary>
    public ChatSession WithOutputTransform(ITextStreamTransform transform)
    {
        OutputTransform = transform;
        return this;
    }

    /// <summary>Saves the session to a folder.</summary>
    public void SaveSession(string path) => GetSessionState().Save(path);

    /// <summary>Returns a snapshot of the session.</summary>
    /// <exception cref="InvalidOperationException">The executor is stateless.</exception>
    public SessionState GetSessionState()
    {
        StatefulExecutorBase executor = Stateful();
        using ContextCall call = executor.Context.Handle.Look($"{nameof(ChatSession)}.{nameof(GetSessionState)}");
        return new SessionState(executor.Context.GetState(), executor.GetStateData(), History, InputTransformPipeline, OutputTransform, HistoryTransform);
    }

    /// <summary>Restores a snapshot.</summary>
    /// <param name="state">The snapshot.</param>
    /// <param name="loadTransforms">Whether the snapshot's transforms replace the session's.</param>
    /// <exception cref="Native.StateLoadException">The snapshot is of another model or KV cache type.</exception>
    /// <exception cref="InvalidOperationException">The snapshot was saved with a transform of another library, which this session does not have.</exception>
    public void LoadSession(SessionState state, bool loadTransforms = true)
    {
        ArgumentNullException.ThrowIfNull(state);
        StatefulExecutorBase executor = Stateful();
        (IHistoryTransform history, List<ITextTransform> input, ITextStreamTransform output) = loadTransforms
            ? SavedTransforms.Restore(state, this)
            : (HistoryTransform, InputTransformPipeline, OutputTransform);
        using ContextCall call = executor.Context.Handle.Enter($"{nameof(ChatSession)}.{nameof(LoadSession)}");
        using LLamaContext.State before = executor.Context.GetState();
        StatefulExecutorBase.ExecutorBaseState executorBefore = executor.GetStateData();
#pragma warning disable VSTHRD002, RS0030 // LLamaSharp's LoadSession is synchronous; this library's executors complete LoadState synchronously.
        try
        {
            executor.Context.LoadState(state.ContextState ?? new LLamaContext.State([]));
            if (state.ExecutorState is not null)
            {
                executor.LoadState(state.ExecutorState).GetAwaiter().GetResult();
            }
        }
        catch
        {
            executor.Context.LoadState(before);
            executor.LoadState(executorBefore).GetAwaiter().GetResult();
            throw;
        }
#pragma warning restore VSTHRD002, RS0030

        History = new ChatHistory(state.History);
        (HistoryTransform, InputTransformPipeline, OutputTransform) = (history, input, output);
        _hasBegun = true;
    }

    /// <summary>Restores a session from a folder that <see cref="SaveSession"/> wrote.</summary>
    /// <inheritdoc cref="LoadSession(SessionState, bool)"/>
    public void LoadSession(string path, bool loadTransforms = true) =>
        StateFile.Read(path, () => LoadSession(SessionState.Load(path), loadTransforms));

    /// <summary>Adds a message to the history. The next turn decodes it.</summary>
    /// <exception cref="ArgumentException">A system message is not the first message.</exception>
    public ChatSession AddMessage(ChatHistory.Message message)
    {
        CheckPlace(message, History.Messages.Count);
        History.Messages.Add(message);
        return this;
    }

    /// <summary>Adds a system message to the history.</summary>
    /// <exception cref="ArgumentException">The history already has messages.</exception>
    public ChatSession AddSystemMessage(string content) => AddMessage(new ChatHistory.Message(AuthorRole.System, content));

    /// <summary>Adds an assistant message to the history.</summary>
    public ChatSession AddAssistantMessage(string content) => AddMessage(new ChatHistory.Message(AuthorRole.Assistant, content));

    /// <summary>Adds a user message to the history.</summary>
    public ChatSession AddUserMessage(string content) => AddMessage(new ChatHistory.Message(AuthorRole.User, content));

    /// <summary>Removes the last message of the history. The next turn removes it from the cache.</summary>
    /// <exception cref="InvalidOperationException">The history is empty.</exception>
    public ChatSession RemoveLastMessage()
    {
        if (History.Messages.Count == 0)
        {
            throw new InvalidOperationException("The history has no message to remove.");
        }

        History.Messages.RemoveAt(History.Messages.Count - 1);
        return this;
    }

    /// <summary>Adds a message to the history and decodes it immediately, without generating an answer.</summary>
    /// <remarks>A failure or cancellation leaves the history unchanged.</remarks>
    /// <exception cref="ArgumentException">A system message is not the first message.</exception>
    /// <exception cref="InvalidOperationException">The executor is stateless.</exception>
    public async Task<ChatSession> AddAndProcessMessage(ChatHistory.Message message, CancellationToken cancellationToken = default)
    {
        StatefulExecutorBase executor = Stateful();
        AddMessage(message);
        try
        {
            await executor.PrefillAsync(ToRead(forAnswer: false, History.Messages.Count - 1), cancellationToken).ConfigureAwait(false);
            _hasBegun = true;
        }
        catch
        {
            Remove(History, message);
            throw;
        }

        return this;
    }

    /// <summary>Adds a system message and decodes it immediately.</summary>
    /// <exception cref="ArgumentException">The history already has messages.</exception>
    public Task<ChatSession> AddAndProcessSystemMessage(string content, CancellationToken cancellationToken = default) =>
        AddAndProcessMessage(new ChatHistory.Message(AuthorRole.System, content), cancellationToken);

    /// <summary>Adds a user message and decodes it immediately.</summary>
    public Task<ChatSession> AddAndProcessUserMessage(string content, CancellationToken cancellationToken = default) =>
        AddAndProcessMessage(new ChatHistory.Message(AuthorRole.User, content), cancellationToken);

    /// <summary>Adds an assistant message and decodes it immediately.</summary>
    public Task<ChatSession> AddAndProcessAssistantMessage(string content, CancellationToken cancellationToken = default) =>
        AddAndProcessMessage(new ChatHistory.Message(AuthorRole.Assistant, content), cancellationToken);

    /// <summary>Replaces a user message and removes all messages after it.</summary>
    /// <exception cref="ArgumentException">The old message is not in the history, or one of the two is not a user message.</exception>
    public ChatSession ReplaceUserMessage(ChatHistory.Message oldMessage, ChatHistory.Message newMessage)
    {
        ArgumentNullException.ThrowIfNull(oldMessage);
        ArgumentNullException.ThrowIfNull(newMessage);
        if (oldMessage.AuthorRole != AuthorRole.User || newMessage.AuthorRole != AuthorRole.User)
        {
            throw new ArgumentException("Both messages must be user messages: only those can be replaced.", nameof(oldMessage));
        }

        int index = History.Messages.IndexOf(oldMessage);
        if (index < 0)
        {
            throw new ArgumentException("The message to replace is not in the history.", nameof(oldMessage));
        }

        History.Messages[index] = newMessage;
        History.Messages.RemoveRange(index + 1, History.Messages.Count - index - 1);
        return this;
    }

    /// <summary>Adds a user message and streams the answer. The history gets the answer when it ends.</summary>
    /// <remarks>
    /// An answer that is stopped, by cancellation or by leaving the loop, is added to the history as far as it was streamed. A failed turn leaves the history unchanged: a template
    /// that rejects the message, a full context, an error during the answer, a cancellation before its first piece.
    /// </remarks>
    /// <param name="message">The message.</param>
    /// <param name="applyInputTransformPipeline">Whether <see cref="InputTransformPipeline"/> is applied to it.</param>
    /// <param name="inferenceParams">Settings of the generation; null: defaults.</param>
    /// <param name="cancellationToken">Stops the answer. The history keeps the text generated so far.</param>
    /// <exception cref="ArgumentException">The message is not a user message.</exception>
    public IAsyncEnumerable<string> ChatAsync(
        ChatHistory.Message message, bool applyInputTransformPipeline, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(message);
        return new SingleReader<string>(ChatAsync([message], applyInputTransformPipeline, inferenceParams, cancellationToken));
    }

    /// <inheritdoc cref="ChatAsync(ChatHistory.Message, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(ChatHistory.Message message, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        ChatAsync(message, applyInputTransformPipeline: true, inferenceParams, cancellationToken);

    /// <summary>Adds the messages of a history and answers the last one, which must be a user message.</summary>
    /// <inheritdoc cref="ChatAsync(ChatHistory.Message, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(
        ChatHistory history, bool applyInputTransformPipeline, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(history);
        return history.Messages.Count > 0
            ? new SingleReader<string>(ChatAsync([.. history.Messages], applyInputTransformPipeline, inferenceParams, cancellationToken))
            : throw new ArgumentException("The history is empty; add the user message to answer.", nameof(history));
    }

    /// <inheritdoc cref="ChatAsync(ChatHistory, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(ChatHistory history, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        ChatAsync(history, applyInputTransformPipeline: true, inferenceParams, cancellationToken);

    /// <summary>Generates a new answer to the last user message and replaces the old answer.</summary>
    /// <remarks>If the new answer fails, or is stopped before its first piece, the old one is restored.</remarks>
    /// <exception cref="InvalidOperationException">The history does not end with a user message and an answer.</exception>
    public IAsyncEnumerable<string> RegenerateAssistantMessageAsync(InferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        new SingleReader<string>(RegenerateAsync(inferenceParams, cancellationToken));

    private async IAsyncEnumerable<string> RegenerateAsync(InferenceParams? inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        if (History.Messages is not [.., { AuthorRole: AuthorRole.User }, { AuthorRole: AuthorRole.Assistant } old])
        {
            throw new InvalidOperationException("There is no answer to regenerate: the history must end with a user message and an answer.");
        }

        await foreach (string text in AnswerAsync([], old, inferenceParams, cancellationToken).ConfigureAwait(false))
        {
            yield return text;
        }
    }

    private async IAsyncEnumerable<string> ChatAsync(
        ChatHistory.Message[] messages, bool applyInputTransformPipeline, IInferenceParams? inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        ChatHistory.Message last = messages[^1];
        if (last.AuthorRole != AuthorRole.User)
        {
            throw new ArgumentException($"The message to answer must be a user message; its role is {last.AuthorRole}.", nameof(messages));
        }

        for (int i = 0; i < messages.Length; i++)
        {
            CheckPlace(messages[i], History.Messages.Count + i);
        }

        string content = applyInputTransformPipeline ? InputTransformPipeline.Aggregate(last.Content, (text, transform) => transform.Transform(text)) : last.Content;
        await foreach (string text in AnswerAsync([.. messages[..^1], new ChatHistory.Message(AuthorRole.User, content)], null, inferenceParams, cancellationToken).ConfigureAwait(false))
        {
            yield return text;
        }
    }

    // Models are trained on conversations that begin with the system message.
    private static void CheckPlace(ChatHistory.Message message, int before)
    {
        ArgumentNullException.ThrowIfNull(message);
        if (message.AuthorRole == AuthorRole.System && before > 0)
        {
            throw new ArgumentException($"A system message must be the first message; the history already has {before}.", nameof(message));
        }
    }

    private StatefulExecutorBase Stateful() =>
        Executor as StatefulExecutorBase ?? throw new InvalidOperationException($"{Executor.GetType().Name} is stateless; use InteractiveExecutor or InstructExecutor.");
}
