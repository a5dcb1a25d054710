using System.Buffers;
using LlamaKivi.Sampling;

namespace LlamaKivi.Native;

/// <summary>Samplers that are applied one after the other to the candidates for the next token; the last one chooses.</summary>
/// <remarks>Samplers keep state from token to token: use a chain for one text at a time. A thread that uses it while another does gets an <see cref="InvalidOperationException"/>.</remarks>
public sealed partial class SafeLLamaSamplerChainHandle : IDisposable
{
    private readonly List<ICustomSampler> _samplers = [];
    private readonly TokenDataCandidates _candidates = new();
    private readonly PipelineGuard _guard = new();
    private LLamaTokenData[] _buffer = [];

    private SafeLLamaSamplerChainHandle()
    {
    }

    /// <summary>Samplers in the chain.</summary>
    public int Count => _samplers.Count;

    /// <summary>Creates an empty chain.</summary>
    public static SafeLLamaSamplerChainHandle Create(LLamaSamplerChainParams @params) => new();

    /// <summary>The name of a sampler.</summary>
    public string GetName(int index) => _samplers[index].Name;

    /// <summary>The seed of a sampler that chooses with random numbers; of others <see cref="uint.MaxValue"/>.</summary>
    public uint GetSeed(int index) => _samplers[index] is ISeededSampler sampler ? sampler.Seed : uint.MaxValue;

    /// <summary>Applies the samplers to candidates.</summary>
    /// <exception cref="NumericErrorException">A logit is NaN or +infinity, or became so by a sampler, which the message names.</exception>
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

    /// <summary>Chooses a token from the logits of batch token <paramref name="index"/> of the last decode, and accepts it.</summary>
    /// <exception cref="InvalidOperationException">No sampler of the chain chooses.</exception>
    public LLamaToken Sample(SafeLLamaContextHandle context, int index)
    {
        ArgumentNullException.ThrowIfNull(context);
        return Sample(context.GetLogitsIth(index));
    }

    /// <summary>Chooses a token from a row of logits, one per vocabulary token, and accepts it. The logits stay as they are.</summary>
    /// <exception cref="InvalidOperationException">No sampler of the chain chooses.</exception>
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
                $"No token was chosen by the chain [{string.Join(", ", _samplers.Select(sampler => sampler.Name))}]. End it with AddGreedySampler or AddDistributionSampler.");
        }

        LLamaToken token = candidates.Data[(int)candidates.Selected].ID;
        Accept(token);
        return token;
    }

    /// <summary>Tells the samplers of a token that was chosen.</summary>
    public void Accept(LLamaToken token)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.ForEach(sampler => sampler.Accept(token));
    }

    /// <summary>Lets the samplers forget the tokens they were told of.</summary>
    public void Reset()
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers.ForEach(sampler => sampler.Reset());
    }

    /// <summary>Adds a copy of another chain's sampler.</summary>
    public void AddClone(SafeLLamaSamplerChainHandle src, int index)
    {
        ArgumentNullException.ThrowIfNull(src);
        using PipelineGuard.Entry entry = src._guard.Enter(src);
        Add(src._samplers[index].Clone());
    }

    /// <summary>Removes a sampler and frees it.</summary>
    public void Remove(int index)
    {
        using PipelineGuard.Entry entry = _guard.Enter(this);
        _samplers[index].Dispose();
        _samplers.RemoveAt(index);
    }

    /// <summary>Adds a sampler of one's own, which the chain disposes of.</summary>
    public void AddCustom<TSampler>(TSampler sampler)
        where TSampler : class, ICustomSampler
    {
        ArgumentNullException.ThrowIfNull(sampler);
        Add(sampler);
    }

    /// <summary>Disposes of the samplers.</summary>
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
