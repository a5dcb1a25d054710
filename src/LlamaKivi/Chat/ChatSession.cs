using System.Runtime.CompilerServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>A conversation with a model: it keeps the messages, and has the executor read them.</summary>
/// <remarks>
/// The history decides. Before each turn it is compared, token by token, with what the executor holds: the common prefix stays in the cache, and the rest is read. So messages may be
/// added, replaced and removed between turns. A stateless executor is given the whole conversation each time. A session without messages continues the executor's text; otherwise text
/// that is not in the history is removed.
/// </remarks>
public partial class ChatSession
{
    /// <summary>File with what the cache held.</summary>
    public const string MODEL_STATE_FILENAME = "ModelState.st";

    /// <summary>File with where the executor was.</summary>
    public const string EXECUTOR_STATE_FILENAME = "ExecutorState.json";

    /// <summary>File with the messages.</summary>
    public const string HISTORY_STATE_FILENAME = "ChatHistory.json";

    /// <summary>File with what is done to texts before the model reads them.</summary>
    public const string INPUT_TRANSFORM_FILENAME = "InputTransform.json";

    /// <summary>File with what is done to texts the model writes.</summary>
    public const string OUTPUT_TRANSFORM_FILENAME = "OutputTransform.json";

    /// <summary>File with how the conversation becomes text.</summary>
    public const string HISTORY_TRANSFORM_FILENAME = "HistoryTransform.json";

    /// <summary>What is done to texts the model writes.</summary>
    public ITextStreamTransform OutputTransform = new LLamaTransforms.EmptyTextOutputStreamTransform();

    /// <summary>Starts a conversation.</summary>
    public ChatSession(ILLamaExecutor executor)
    {
        ArgumentNullException.ThrowIfNull(executor);
        Executor = executor;
    }

    /// <summary>Starts a conversation that already has messages; they are read with the first message that follows.</summary>
    public ChatSession(ILLamaExecutor executor, ChatHistory history)
        : this(executor)
    {
        ArgumentNullException.ThrowIfNull(history);
        History = history;
    }

    /// <summary>Reads and writes for the session.</summary>
    public ILLamaExecutor Executor { get; private set; }

    /// <summary>The messages.</summary>
    public ChatHistory History { get; private set; } = new();

    /// <summary>How the conversation becomes text.</summary>
    public IHistoryTransform HistoryTransform { get; set; } = new LLamaTransforms.DefaultHistoryTransform();

    /// <summary>What is done to texts before the model reads them, in order.</summary>
    public List<ITextTransform> InputTransformPipeline { get; set; } = [];

    /// <summary>Starts a conversation that already has messages, and reads them now.</summary>
    /// <exception cref="ArgumentException">The executor keeps no text.</exception>
    public static async Task<ChatSession> InitializeSessionFromHistoryAsync(
        ILLamaExecutor executor, ChatHistory history, IHistoryTransform? transform = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(history);
        if (executor is not StatefulExecutorBase stateful)
        {
            throw new ArgumentException("The executor must be one that keeps its text, such as InteractiveExecutor.", nameof(executor));
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

    /// <summary>Sets how the conversation becomes text.</summary>
    public ChatSession WithHistoryTransform(IHistoryTransform transform)
    {
        HistoryTransform = transform;
        return this;
    }

    /// <summary>Adds something to do to texts before the model reads them.</summary>
    public ChatSession AddInputTransform(ITextTransform transform)
    {
        InputTransformPipeline.Add(transform);
        return this;
    }

    /// <summary>Sets what is done to texts the model writes.</summary>
    public ChatSession WithOutputTransform(ITextStreamTransform transform)
    {
        OutputTransform = transform;
        return this;
    }

    /// <summary>Writes the session into a folder.</summary>
    public void SaveSession(string path) => GetSessionState().Save(path);

    /// <summary>The session at this moment.</summary>
    /// <exception cref="InvalidOperationException">The executor keeps no text.</exception>
    public SessionState GetSessionState()
    {
        StatefulExecutorBase executor = Stateful();
        using ContextCall call = executor.Context.Handle.Look($"{nameof(ChatSession)}.{nameof(GetSessionState)}");
        return new SessionState(executor.Context.GetState(), executor.GetStateData(), History, InputTransformPipeline, OutputTransform, HistoryTransform);
    }

    /// <summary>Goes on where a state was taken.</summary>
    /// <param name="state">The state.</param>
    /// <param name="loadTransforms">Whether the state's transforms take the place of this session's.</param>
    /// <exception cref="Native.StateLoadException">The state belongs to another model or kind of KV cache.</exception>
    /// <exception cref="InvalidOperationException">The state was saved with a transform that is not this library's own and that this session does not have.</exception>
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
#pragma warning disable VSTHRD002, RS0030 // LLamaSharp's LoadSession is synchronous, and the executors of this library have finished when LoadState returns.
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

    /// <summary>Goes on with what <see cref="SaveSession"/> wrote.</summary>
    /// <inheritdoc cref="LoadSession(SessionState, bool)"/>
    public void LoadSession(string path, bool loadTransforms = true) =>
        StateFile.Read(path, () => LoadSession(SessionState.Load(path), loadTransforms));

    /// <summary>Adds a message to the history; the model reads it with the next turn.</summary>
    /// <exception cref="ArgumentException">It is a system message, and not the first.</exception>
    public ChatSession AddMessage(ChatHistory.Message message)
    {
        CheckPlace(message, History.Messages.Count);
        History.Messages.Add(message);
        return this;
    }

    /// <summary>Adds a system message to the history.</summary>
    /// <exception cref="ArgumentException">It is not the first message.</exception>
    public ChatSession AddSystemMessage(string content) => AddMessage(new ChatHistory.Message(AuthorRole.System, content));

    /// <summary>Adds an answer to the history.</summary>
    public ChatSession AddAssistantMessage(string content) => AddMessage(new ChatHistory.Message(AuthorRole.Assistant, content));

    /// <summary>Adds a user's message to the history.</summary>
    public ChatSession AddUserMessage(string content) => AddMessage(new ChatHistory.Message(AuthorRole.User, content));

    /// <summary>Removes the last message of the history; the model has not read it when the next turn begins.</summary>
    /// <exception cref="InvalidOperationException">There is none.</exception>
    public ChatSession RemoveLastMessage()
    {
        if (History.Messages.Count == 0)
        {
            throw new InvalidOperationException("The history has no message to remove.");
        }

        History.Messages.RemoveAt(History.Messages.Count - 1);
        return this;
    }

    /// <summary>Adds a message to the history and has the model read it now, without an answer.</summary>
    /// <remarks>What fails or is cancelled leaves the history as it was.</remarks>
    /// <exception cref="ArgumentException">It is a system message, and not the first.</exception>
    /// <exception cref="InvalidOperationException">The executor keeps no text.</exception>
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

    /// <summary>Adds a system message and has the model read it now.</summary>
    /// <exception cref="ArgumentException">It is not the first message.</exception>
    public Task<ChatSession> AddAndProcessSystemMessage(string content, CancellationToken cancellationToken = default) =>
        AddAndProcessMessage(new ChatHistory.Message(AuthorRole.System, content), cancellationToken);

    /// <summary>Adds a user's message and has the model read it now.</summary>
    public Task<ChatSession> AddAndProcessUserMessage(string content, CancellationToken cancellationToken = default) =>
        AddAndProcessMessage(new ChatHistory.Message(AuthorRole.User, content), cancellationToken);

    /// <summary>Adds an answer and has the model read it now.</summary>
    public Task<ChatSession> AddAndProcessAssistantMessage(string content, CancellationToken cancellationToken = default) =>
        AddAndProcessMessage(new ChatHistory.Message(AuthorRole.Assistant, content), cancellationToken);

    /// <summary>Puts a user's message in the place of another, and forgets what came after it.</summary>
    /// <exception cref="ArgumentException">The old message is not in the history, or one of them is not a user's.</exception>
    public ChatSession ReplaceUserMessage(ChatHistory.Message oldMessage, ChatHistory.Message newMessage)
    {
        ArgumentNullException.ThrowIfNull(oldMessage);
        ArgumentNullException.ThrowIfNull(newMessage);
        if (oldMessage.AuthorRole != AuthorRole.User || newMessage.AuthorRole != AuthorRole.User)
        {
            throw new ArgumentException("Only a user's message can be replaced, and by a user's.", nameof(oldMessage));
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

    /// <summary>Adds a user's message and streams the answer, which joins the history when it ends.</summary>
    /// <remarks>
    /// An answer that is stopped, by the token or because its reader leaves the loop, joins the history as far as it was read. A turn that fails leaves the history as it was: a template
    /// that refuses the message, a full context, an error in the middle of the answer, a stop before its first piece.
    /// </remarks>
    /// <param name="message">The message.</param>
    /// <param name="applyInputTransformPipeline">Whether <see cref="InputTransformPipeline"/> changes it first.</param>
    /// <param name="inferenceParams">How to answer.</param>
    /// <param name="cancellationToken">Stops the answer; what was written by then joins the history.</param>
    /// <exception cref="ArgumentException">The message is not a user's.</exception>
    public IAsyncEnumerable<string> ChatAsync(
        ChatHistory.Message message, bool applyInputTransformPipeline, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(message);
        return new SingleReader<string>(ChatAsync([message], applyInputTransformPipeline, inferenceParams, cancellationToken));
    }

    /// <inheritdoc cref="ChatAsync(ChatHistory.Message, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(ChatHistory.Message message, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        ChatAsync(message, applyInputTransformPipeline: true, inferenceParams, cancellationToken);

    /// <summary>Adds the messages of a history and answers the last, a user's.</summary>
    /// <inheritdoc cref="ChatAsync(ChatHistory.Message, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(
        ChatHistory history, bool applyInputTransformPipeline, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(history);
        return history.Messages.Count > 0
            ? new SingleReader<string>(ChatAsync([.. history.Messages], applyInputTransformPipeline, inferenceParams, cancellationToken))
            : throw new ArgumentException("The history has no message.", nameof(history));
    }

    /// <inheritdoc cref="ChatAsync(ChatHistory, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(ChatHistory history, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        ChatAsync(history, applyInputTransformPipeline: true, inferenceParams, cancellationToken);

    /// <summary>Answers the last user's message once more, in place of the answer it got.</summary>
    /// <remarks>The old answer comes back where the new one fails or is stopped before its first piece.</remarks>
    /// <exception cref="InvalidOperationException">The history does not end with a user's message and an answer.</exception>
    public IAsyncEnumerable<string> RegenerateAssistantMessageAsync(InferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        new SingleReader<string>(RegenerateAsync(inferenceParams, cancellationToken));

    private async IAsyncEnumerable<string> RegenerateAsync(InferenceParams? inferenceParams, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        if (History.Messages is not [.., { AuthorRole: AuthorRole.User }, { AuthorRole: AuthorRole.Assistant } old])
        {
            throw new InvalidOperationException("There is no answer to write anew: the history must end with a user's message and an answer.");
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
            throw new ArgumentException($"The message to answer must be a user's; this one is of role {last.AuthorRole}.", nameof(messages));
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

    // Models are trained on conversations that the system begins.
    private static void CheckPlace(ChatHistory.Message message, int before)
    {
        ArgumentNullException.ThrowIfNull(message);
        if (message.AuthorRole == AuthorRole.System && before > 0)
        {
            throw new ArgumentException($"A system message must be the first of a conversation; there are {before} before it.", nameof(message));
        }
    }

    private StatefulExecutorBase Stateful() =>
        Executor as StatefulExecutorBase ?? throw new InvalidOperationException($"{Executor.GetType().Name} keeps no text; use InteractiveExecutor or InstructExecutor.");
}
