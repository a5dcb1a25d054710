using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;

namespace LlamaKivi;

/// <summary>Computes how many tokens a full context drops.</summary>
internal static class ContextRoom
{
    private const int MostLeast = 32;  // tokens; larger steps give no measurable speedup

    /// <summary>Validates overflow settings and prompt length before anything is decoded.</summary>
    /// <exception cref="ArgumentOutOfRangeException">TokensKeep leaves no room, or ContextTruncationPercentage is not between 0 and 1.</exception>
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
                $"TokensKeep is {options.TokensKeep}{(keepsBos ? ", and the beginning-of-text token is kept too" : "")}; the context holds {size} tokens, so nothing could be dropped. Lower TokensKeep or raise ContextSize.");
        }

        if (!float.IsFinite(options.ContextTruncationPercentage) || (drops && options.ContextTruncationPercentage is not (> 0 and < 1)))
        {
            throw new ArgumentOutOfRangeException(
                nameof(options), options.ContextTruncationPercentage, $"ContextTruncationPercentage is {options.ContextTruncationPercentage}; it must be above 0 and below 1.");
        }

        if (prompt.Needed > size)
        {
            throw new ContextOverflowException($"The prompt has {prompt.Needed} tokens; the context holds {size}. Shorten the prompt or raise ContextSize.");
        }
    }

    /// <summary>Number of tokens to drop after the kept ones.</summary>
    /// <param name="count">Number of tokens, more than <paramref name="size"/>.</param>
    /// <param name="keep">Number of tokens to keep at the start.</param>
    /// <param name="needed">Number of tokens to keep at the end.</param>
    /// <param name="size">Capacity of the context in tokens.</param>
    /// <param name="part">Fraction to drop of the tokens after <paramref name="keep"/>.</param>
    /// <exception cref="ContextOverflowException">The tokens to keep exceed the capacity.</exception>
    public static int ToDrop(int count, int keep, int needed, int size, float part)
    {
        int excess = count - size;
        int possible = count - keep - needed;
        if (possible < excess)
        {
            throw new ContextOverflowException(
                $"The context holds {size} tokens; {keep} tokens to keep and {needed} to read do not fit. Shorten the prompt, lower TokensKeep or raise ContextSize.");
        }

        // Each drop takes a pass over the cache, so a minimum applies even to a small fraction.
        int least = Math.Clamp(size / 16, 1, MostLeast);
        int wanted = Math.Max((int)Math.Ceiling((count - keep) * part), least);
        return Math.Clamp(wanted, excess, possible);
    }

    /// <summary>Number of tokens to drop after the kept ones so that the cache frees memory: at least a page, because a page is freed as a whole.</summary>
    /// <param name="count">Number of tokens.</param>
    /// <param name="keep">Number of tokens to keep at the start.</param>
    /// <param name="possible">Number of tokens that may be dropped, above 0.</param>
    /// <param name="part">Fraction to drop of the tokens after <paramref name="keep"/>.</param>
    public static int ToDropForBytes(int count, int keep, int possible, float part) =>
        Math.Clamp(Math.Max((int)Math.Ceiling((count - keep) * part), KvCacheParams.PageTokens), 1, possible);
}
