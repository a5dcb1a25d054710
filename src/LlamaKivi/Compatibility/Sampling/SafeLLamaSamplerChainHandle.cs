using System.Buffers;
using LlamaKivi.Sampling;

namespace LlamaKivi.Native;

/// <summary>A chain of samplers, applied in order to the candidates for the next token; the last one selects.</summary>
/// <remarks>Samplers keep state between tokens: use a chain for one text at a time. Concurrent use throws <see cref="InvalidOperationException"/>.</remarks>
public sealed partial class SafeLLamaSamplerChainHandle : IDisposable
{
    private readonly List<ICustomSampler> _samplers = [];
    private readonly TokenDataCandidates _candidates = new();
    private readonly PipelineGuard _guard = new();
    private LLamaTokenData[] _buffer = [];

    private SafeLLamaSamplerChainHandle()
    {
    }

    /// <summary>Number of samplers in the chain.</summary>
    public int Count => _samplers.Count;

    /// <summary>Creates an empty chain.</summary>
    public static SafeLLamaSamplerChainHandle Create(LLamaSamplerChainParams @params) => new();

    /// <summary>Name of a sampler.</summary>
    public string GetName(int index) => _samplers[index].Name;

    /// <summary>Seed of a sampler with random numbers; otherwise <see cref="uint.MaxValue"/>.</summary>
    public uint GetSeed(int index) => _samplers[index] is ISeededSampler sampler ? sampler.Seed : uint.MaxValue;

    /// <summary>Applies the samplers to candidates.</summary>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity; the message names the sampler that produced it.</exception>
    /// <exception cref="InvalidOperationException">No candidate is left, or every logit is -infinity.</exception>
    public void Apply(ref LLamaTokenDataArrayNative candidates)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        CandidateCheck.Check(candidates.Data, null);
        foreach (ICustomSampler sampler in _samplers)
        {
            if (sampler is ChainSampler own)
            {
                own.Apply(_candidates, ref candidates);
            }
            else
            {
                sampler.Apply(ref candidates);
            }

            CandidateCheck.Check(candidates.Data, sampler.Name);
        }
    }

    /// <summary>Samples a token from the logits of token <paramref name="index"/> of the last batch and accepts it.</summary>
    /// <exception cref="InvalidOperationException">No sampler of the chain selects a token.</exception>
    public LLamaToken Sample(SafeLLamaContextHandle context, int index)
    {
        ArgumentNullException.ThrowIfNull(context);
        return Sample(context.GetLogitsIth(index));
    }

    /// <summary>Samples a token from a row of logits, [vocabulary size], and accepts it. The logits are not changed.</summary>
    /// <exception cref="InvalidOperationException">No sampler of the chain selects a token.</exception>
    public LLamaToken Sample(ReadOnlySpan<float> logits)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        LogitCheck.Max(logits);
        _buffer = _buffer.Length < logits.Length ? new LLamaTokenData[logits.Length] : _buffer;
        using MemoryHandle pin = LLamaTokenDataArrayNative.Create(LLamaTokenDataArray.Create(logits, _buffer), out LLamaTokenDataArrayNative candidates);
        Apply(ref candidates);
        if (candidates.Selected < 0 || candidates.Selected >= (long)candidates.Size)
        {
            throw new InvalidOperationException(
                $"The chain [{string.Join(", ", _samplers.Select(sampler => sampler.Name))}] chose no token. End it with AddGreedySampler or AddDistributionSampler.");
        }

        LLamaToken token = candidates.Data[(int)candidates.Selected].ID;
        Accept(token);
        return token;
    }

    /// <summary>Updates the samplers' state with a selected token.</summary>
    public void Accept(LLamaToken token)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.ForEach(sampler => sampler.Accept(token));
    }

    /// <summary>Clears the samplers' state.</summary>
    public void Reset()
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.ForEach(sampler => sampler.Reset());
    }

    /// <summary>Adds a copy of a sampler of another chain.</summary>
    public void AddClone(SafeLLamaSamplerChainHandle src, int index)
    {
        ArgumentNullException.ThrowIfNull(src);
        using PipelineGuard.Entry entry = src._guard.Enter(src);
        Add(src._samplers[index].Clone());
    }

    /// <summary>Removes and frees a sampler.</summary>
    public void Remove(int index)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers[index].Dispose();
        _samplers.RemoveAt(index);
    }

    /// <summary>Adds a user-defined sampler; the chain takes ownership.</summary>
    public void AddCustom<TSampler>(TSampler sampler)
        where TSampler : class, ICustomSampler
    {
        ArgumentNullException.ThrowIfNull(sampler);
        Add(sampler);
    }

    /// <summary>Frees the samplers.</summary>
    public void Dispose()
    {
        _samplers.ForEach(sampler => sampler.Dispose());
        _samplers.Clear();
    }

    private void Add(ICustomSampler sampler)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.Add(sampler);
    }
}
