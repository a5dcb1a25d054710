using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>Log probability of a token: the natural logarithm of its probability in the model's distribution, before the sampling pipeline changes it.</summary>
/// <param name="Token">The token.</param>
/// <param name="Logprob">The log probability; -infinity: probability 0.</param>
public readonly record struct TokenLogprob(LLamaToken Token, float Logprob);

/// <summary>Log probabilities of a generated token and its alternatives.</summary>
/// <param name="Token">The generated token.</param>
/// <param name="Logprob">Its log probability.</param>
/// <param name="Top">The most probable tokens at its position, most probable first, <see cref="Common.InferenceParams.TopLogprobs"/> of them.</param>
/// <param name="TextEnd">Number of characters of the generated text after the token. Equal to the one before if the token completes no character.</param>
public sealed record TokenLogprobs(LLamaToken Token, float Logprob, IReadOnlyList<TokenLogprob> Top, int TextEnd);
