using System.Runtime.CompilerServices;
using System.Text;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Transformers;

namespace LlamaKivi;

/// <summary>A conversation with a model: it keeps the messages, and hands the executor what it has not read yet.</summary>
public class ChatSession
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

    // Tokens of the executor before the last answer's question; -1: not known.
    private int _beforeLastTurn = -1;

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

        await stateful.PrefillPromptAsync(session.HistoryTransform.HistoryToText(history), cancellationToken).ConfigureAwait(false);
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
        return new SessionState(executor.Context.GetState(), executor.GetStateData(), History, InputTransformPipeline, OutputTransform, HistoryTransform);
    }

    /// <summary>Goes on where a state was taken.</summary>
    /// <param name="state">The state.</param>
    /// <param name="loadTransforms">Whether the state's transforms take the place of this session's.</param>
    /// <exception cref="Native.StateLoadException">The state belongs to another model or kind of KV cache.</exception>
    public void LoadSession(SessionState state, bool loadTransforms = true)
    {
        ArgumentNullException.ThrowIfNull(state);
        StatefulExecutorBase executor = Stateful();
        using LLamaContext.State before = executor.Context.GetState();
        StatefulExecutorBase.ExecutorBaseState executorBefore = executor.GetStateData();
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

        History = new ChatHistory(state.History);
        _beforeLastTurn = -1;
        if (loadTransforms)
        {
            InputTransformPipeline = [.. state.InputTransformPipeline.Select(transform => transform.Clone())];
            OutputTransform = state.OutputTransform.Clone();
            HistoryTransform = state.HistoryTransform.Clone();
        }
    }

    /// <summary>Goes on with what <see cref="SaveSession"/> wrote.</summary>
    /// <inheritdoc cref="LoadSession(SessionState, bool)"/>
    public void LoadSession(string path, bool loadTransforms = true) =>
        StateFile.Read(path, () => LoadSession(SessionState.Load(path), loadTransforms));

    /// <summary>Adds a message to the history; the model does not read it by that.</summary>
    /// <exception cref="ArgumentException">It is a system message, and not the first.</exception>
    public ChatSession AddMessage(ChatHistory.Message message)
    {
        CheckPlace(message);
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

    /// <summary>Removes the last message of the history.</summary>
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
    /// <exception cref="ArgumentException">It is a system message, and not the first.</exception>
    /// <exception cref="InvalidOperationException">The executor keeps no text.</exception>
    public async Task<ChatSession> AddAndProcessMessage(ChatHistory.Message message, CancellationToken cancellationToken = default)
    {
        CheckPlace(message);
        StatefulExecutorBase executor = Stateful();
        await executor.PrefillPromptAsync(HistoryTransform.HistoryToText(HistoryTransform.TextToHistory(message.AuthorRole, message.Content)), cancellationToken).ConfigureAwait(false);
        return AddMessage(message);
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
    /// <param name="message">The message.</param>
    /// <param name="applyInputTransformPipeline">Whether <see cref="InputTransformPipeline"/> changes it first.</param>
    /// <param name="inferenceParams">How to answer.</param>
    /// <param name="cancellationToken">Stops the answer; what was written by then joins the history.</param>
    /// <exception cref="ArgumentException">The message is not a user's.</exception>
    public async IAsyncEnumerable<string> ChatAsync(
        ChatHistory.Message message,
        bool applyInputTransformPipeline,
        IInferenceParams? inferenceParams = null,
        [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(message);
        if (message.AuthorRole != AuthorRole.User)
        {
            throw new ArgumentException($"The message to answer must be a user's; this one is of role {message.AuthorRole}.", nameof(message));
        }

        if (applyInputTransformPipeline)
        {
            message = new ChatHistory.Message(message.AuthorRole, InputTransformPipeline.Aggregate(message.Content, (text, transform) => transform.Transform(text)));
        }

        AddUserMessage(message.Content);
        var stateful = Executor as StatefulExecutorBase;
        _beforeLastTurn = stateful?.Generation.Tokens.Count ?? -1;

        // An executor that has read nothing, or keeps nothing, is given the whole conversation; one that has read it so far, the new message.
        string prompt = stateful is null or { IsPromptRun: true } ? HistoryTransform.HistoryToText(History)
            : HistoryTransform is PromptTemplateTransformer template ? template.NextTurn(History, stateful.EndedByItself)
            : HistoryTransform.HistoryToText(HistoryTransform.TextToHistory(message.AuthorRole, message.Content));
        var answer = new StringBuilder();
        try
        {
            await foreach (string text in OutputTransform.TransformAsync(Executor.InferAsync(prompt, inferenceParams, cancellationToken))
                .WithCancellation(cancellationToken).ConfigureAwait(false))
            {
                answer.Append(text);
                yield return text;
            }
        }
        finally
        {
            AddAssistantMessage(HistoryTransform.TextToHistory(AuthorRole.Assistant, answer.ToString()).Messages[0].Content);
        }
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
        ChatHistory.Message last = history.Messages.LastOrDefault() ?? throw new ArgumentException("The history has no message.", nameof(history));
        foreach (ChatHistory.Message message in history.Messages.SkipLast(1))
        {
            AddMessage(message);
        }

        return ChatAsync(last, applyInputTransformPipeline, inferenceParams, cancellationToken);
    }

    /// <inheritdoc cref="ChatAsync(ChatHistory, bool, IInferenceParams?, CancellationToken)"/>
    public IAsyncEnumerable<string> ChatAsync(ChatHistory history, IInferenceParams? inferenceParams = null, CancellationToken cancellationToken = default) =>
        ChatAsync(history, applyInputTransformPipeline: true, inferenceParams, cancellationToken);

    /// <summary>Answers the last user's message once more, in place of the answer it got.</summary>
    /// <exception cref="InvalidOperationException">The history does not end with a user's message and an answer.</exception>
    public async IAsyncEnumerable<string> RegenerateAssistantMessageAsync(
        InferenceParams? inferenceParams = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        if (History.Messages is not [.., { AuthorRole: AuthorRole.User } question, { AuthorRole: AuthorRole.Assistant }])
        {
            throw new InvalidOperationException("There is no answer to write anew: the history must end with a user's message and an answer.");
        }

        RemoveLastMessage();
        RemoveLastMessage();
        if (Executor is StatefulExecutorBase stateful && _beforeLastTurn >= 0)
        {
            stateful.Generation.Rewind(_beforeLastTurn);
        }

        await foreach (string text in ChatAsync(question, applyInputTransformPipeline: false, inferenceParams, cancellationToken).ConfigureAwait(false))
        {
            yield return text;
        }
    }

    // Models are trained on conversations that the system begins.
    private void CheckPlace(ChatHistory.Message message)
    {
        ArgumentNullException.ThrowIfNull(message);
        if (message.AuthorRole == AuthorRole.System && History.Messages.Count > 0)
        {
            throw new ArgumentException($"A system message must be the first of a conversation; there are {History.Messages.Count} before it.", nameof(message));
        }
    }

    private StatefulExecutorBase Stateful() =>
        Executor as StatefulExecutorBase ?? throw new InvalidOperationException($"{Executor.GetType().Name} keeps no text; use InteractiveExecutor or InstructExecutor.");
}
