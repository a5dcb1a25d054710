using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;

namespace LlamaKivi;

/// <summary>How a full context makes room.</summary>
internal static class ContextRoom
{
    private const int MostLeast = 32;  // tokens: dropping more at a time saves nothing that can be measured

    /// <summary>Refuses settings that cannot work and a prompt that the context cannot hold, before anything is read.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The tokens to keep leave no room, or the part to drop is none.</exception>
    /// <exception cref="ContextOverflowException">The prompt is longer than the context.</exception>
    public static void Check(Prompt prompt, IInferenceParams options, int size, bool addsBos)
    {
        bool drops = options.OverflowStrategy is not (ContextOverflowStrategy.ThrowException or ContextOverflowStrategy.Stop);
        bool keepsBos = drops && addsBos;
        if (options.TokensKeep >= (keepsBos ? size - 1 : size))
        {
            throw new ArgumentOutOfRangeException(
                nameof(options),
                options.TokensKeep,
                $"TokensKeep is {options.TokensKeep}{(keepsBos ? ", and the beginning-of-text token stays too" : "")}; the context holds {size} tokens, so nothing could be dropped. Lower TokensKeep or raise ContextSize.");
        }

        if (drops && options.ContextTruncationPercentage is not (> 0 and < 1))
        {
            throw new ArgumentOutOfRangeException(
                nameof(options), options.ContextTruncationPercentage, $"ContextTruncationPercentage is {options.ContextTruncationPercentage}; it must be above 0 and below 1.");
        }

        if (prompt.Needed > size)
        {
            throw new ContextOverflowException($"The prompt has {prompt.Needed} tokens; the context holds {size}. Shorten the prompt or raise ContextSize.");
        }
    }

    /// <summary>Tokens to drop behind the first ones.</summary>
    /// <param name="count">Tokens there are, more than the context holds.</param>
    /// <param name="keep">First tokens to keep.</param>
    /// <param name="needed">Last tokens to keep.</param>
    /// <param name="size">Tokens the context holds.</param>
    /// <param name="part">Part of the tokens behind the first ones to drop.</param>
    /// <exception cref="ContextOverflowException">What is to be kept is more than the context holds.</exception>
    public static int ToDrop(int count, int keep, int needed, int size, float part)
    {
        int excess = count - size;
        int possible = count - keep - needed;
        if (possible < excess)
        {
            throw new ContextOverflowException(
                $"The context holds {size} tokens; the {keep} to keep and the {needed} to read are more. Shorten the prompt, lower TokensKeep or raise ContextSize.");
        }

        // Dropping takes a pass over the cache: not for a token at a time, however small the part.
        int least = Math.Clamp(size / 16, 1, MostLeast);
        int wanted = Math.Max((int)Math.Ceiling((count - keep) * part), least);
        return Math.Clamp(wanted, excess, possible);
    }
}
