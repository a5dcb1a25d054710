using System.Text.Json.Serialization;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using LlamaKivi.Transformers;
using Microsoft.Extensions.Logging;

namespace LlamaKivi;

/// <summary>Answers instructions: wraps each text after the first in an instruction prefix and suffix.</summary>
/// <remarks>
/// An answer that ends by itself or at MaxTokens is followed by the piece "\n> ", a prompt for the user. It is not part of the model's text.
/// </remarks>
public class InstructExecutor : StatefulExecutorBase
{
    internal const string AnswerEnd = "\n> ";

    private string _prefix;
    private int[] _prefixTokens;
    private int[] _suffixTokens;

    /// <summary>Creates an executor on sequence 0 of a context.</summary>
    /// <param name="context">The context.</param>
    /// <param name="instructionPrefix">Text before an instruction; also a stop string for answers.</param>
    /// <param name="instructionSuffix">Text between an instruction and its answer.</param>
    /// <param name="logger">Receives messages about the context.</param>
    public InstructExecutor(
        LLamaContext context, string instructionPrefix = "\n\n### Instruction:\n\n", string instructionSuffix = "\n\n### Response:\n\n", ILogger? logger = null)
        : base(context, logger)
    {
        ArgumentNullException.ThrowIfNull(instructionPrefix);
        ArgumentNullException.ThrowIfNull(instructionSuffix);
        Tokenizer tokenizer = context.Weights.Tokenizer;
        _prefix = instructionPrefix;
        _prefixTokens = tokenizer.Encode(instructionPrefix, addBos: false, parseSpecial: true);
        _suffixTokens = tokenizer.Encode(instructionSuffix, addBos: false, parseSpecial: true);
    }

    /// <inheritdoc/>
    public override ExecutorBaseState GetStateData()
    {
        using ContextCall call = Look();
        var state = new InstructExecutorState
        {
            IsPromptRun = IsPromptRun,
            InputPrefixTokens = [.. _prefixTokens.Select(token => (LLamaToken)token)],
            InputSuffixTokens = [.. _suffixTokens.Select(token => (LLamaToken)token)],
        };
        Fill(state);
        return state;
    }

    /// <inheritdoc/>
    public override Task LoadState(ExecutorBaseState data, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (data is not InstructExecutorState state)
        {
            throw new ArgumentException("The state is not an InstructExecutor's.", nameof(data));
        }

        using ContextCall call = Enter();
        Restore(data);
        if (state is { InputPrefixTokens: not null, InputSuffixTokens: not null })
        {
            _prefixTokens = [.. state.InputPrefixTokens.Select(token => (int)token)];
            _suffixTokens = [.. state.InputSuffixTokens.Select(token => (int)token)];
            _prefix = Context.Weights.Tokenizer.Decode(_prefixTokens, special: true);
        }

        return Task.CompletedTask;
    }

    private protected override string EndMark => AnswerEnd;

    private protected override int[] Prepare(string text)
    {
        Tokenizer tokenizer = Context.Weights.Tokenizer;
        return IsPromptRun ? tokenizer.Encode(text, tokenizer.AddBos, parseSpecial: true) : Instruction(text);
    }

    // Encodes a conversation as successive calls would: messages before the first answer verbatim, later ones as instructions, answers verbatim.
    private protected override (int[] Tokens, int Last) EncodeConversation(PromptText text, ChatHistory history, IHistoryTransform transform, bool addBos)
    {
        if (transform is PromptTemplateTransformer)
        {
            return base.EncodeConversation(text, history, transform, addBos);  // the template marks the turns itself
        }

        Tokenizer tokenizer = Context.Weights.Tokenizer;
        var tokens = new List<int>(tokenizer.Encode("", addBos, parseSpecial: true));
        var asked = new List<ChatHistory.Message>();
        int last = 0;
        bool isFirst = true;
        foreach (ChatHistory.Message message in history.Messages)
        {
            if (message.AuthorRole != AuthorRole.Assistant)
            {
                asked.Add(message);
                continue;
            }

            Ask();
            string answer = message.Content.EndsWith(AnswerEnd, StringComparison.Ordinal) ? message.Content[..^AnswerEnd.Length] : message.Content;
            tokens.AddRange(tokenizer.Encode(answer, addBos: false, parseSpecial: true));
        }

        Ask();
        return ([.. tokens], last);

        void Ask()
        {
            if (asked.Count > 0)
            {
                string lines = transform.HistoryToText(new ChatHistory([.. asked]));
                int[] read = isFirst ? tokenizer.Encode(lines, addBos: false, parseSpecial: true) : Instruction(lines);
                tokens.AddRange(read);
                last = read.Length;
                asked.Clear();
            }

            isFirst = false;
        }
    }

    private int[] Instruction(string text) =>
        [.. _prefixTokens, .. Context.Weights.Tokenizer.Encode(text.EndsWith('\n') ? text : text + "\n", addBos: false, parseSpecial: true), .. _suffixTokens];

    private protected override IInferenceParams Complete(IInferenceParams options) => string.IsNullOrWhiteSpace(_prefix)
        ? options
        : (options as InferenceParams ?? new InferenceParams
        {
            TokensKeep = options.TokensKeep,
            MaxTokens = options.MaxTokens,
            SamplingPipeline = options.SamplingPipeline,
            DecodeSpecialTokens = options.DecodeSpecialTokens,
            OverflowStrategy = options.OverflowStrategy,
            ContextTruncationPercentage = options.ContextTruncationPercentage,
        }) with
        {
            AntiPrompts = [.. options.AntiPrompts ?? [], _prefix],
        };

    /// <summary>State of an <see cref="InstructExecutor"/>.</summary>
    public class InstructExecutorState : ExecutorBaseState
    {
        /// <summary>Whether the executor has not read any text yet.</summary>
        [JsonPropertyName("is_prompt_run")]
        public bool IsPromptRun { get; set; }

        /// <summary>Tokens of the instruction prefix.</summary>
        [JsonPropertyName("inp_pfx")]
        public LLamaToken[]? InputPrefixTokens { get; set; }

        /// <summary>Tokens of the instruction suffix.</summary>
        [JsonPropertyName("inp_sfx")]
        public LLamaToken[]? InputSuffixTokens { get; set; }
    }
}
