using System.Runtime.InteropServices;
using LlamaKivi.Native;

namespace LlamaKivi.Sampling;

/// <summary>The samplings of a batch's outputs, for <see cref="ContextHandle.DecodeSample"/>. Buffers are reused.</summary>
internal sealed class SamplingBatch
{
    private readonly List<SamplingParameters> _parameters = [];
    private readonly List<TokenCount> _recent = [];
    private readonly Dictionary<ISamplingPipeline, int> _rows = new(ReferenceEqualityComparer.Instance);  // the first output of each pipeline with state
    private int[] _tokens = [];
    private int _sampled;  // number of outputs that the engine samples

    /// <summary>Whether the engine samples an output.</summary>
    public bool SamplesAny => _sampled > 0;

    /// <summary>Number of outputs.</summary>
    public int Count => _parameters.Count;

    public ReadOnlySpan<SamplingParameters> Parameters => CollectionsMarshal.AsSpan(_parameters);

    public ReadOnlySpan<TokenCount> Recent => CollectionsMarshal.AsSpan(_recent);

    /// <summary>The sampled tokens, [<see cref="Count"/>]; -1: not sampled.</summary>
    public Span<int> Tokens => _tokens.AsSpan(0, Count);

    public void Clear()
    {
        _parameters.Clear();
        _recent.Clear();
        _rows.Clear();
        _sampled = 0;
    }

    /// <summary>Adds an output. The engine samples its token if the pipeline allows it; otherwise its logits are kept.</summary>
    /// <param name="pipeline">The pipeline; null: the logits are kept. Its state does not change until <see cref="BaseSamplingPipeline.Commit"/>.</param>
    /// <param name="newline">Line break token; null: unknown.</param>
    public void Add(ISamplingPipeline? pipeline, int? newline)
    {
        int before = _recent.Count;
        if (pipeline is BaseSamplingPipeline own && TryDescribe(own, newline, out SamplingParameters parameters))
        {
            _parameters.Add(parameters with { RecentCount = _recent.Count - before });
            _sampled++;
        }
        else
        {
            _parameters.Add(new SamplingParameters { KeepLogits = true });
        }

        if (_tokens.Length < Count)
        {
            _tokens = new int[Math.Max(Count, 2 * _tokens.Length)];
        }
    }

    // The engine no longer samples an output.
    private void KeepLogits(int row)
    {
        if (_parameters[row].KeepLogits)
        {
            return;
        }

        int first = 0;
        for (int i = 0; i < row; i++)
        {
            first += _parameters[i].RecentCount;
        }

        _recent.RemoveRange(first, _parameters[row].RecentCount);
        _parameters[row] = new SamplingParameters { KeepLogits = true };
        _sampled--;
    }

    private bool TryDescribe(BaseSamplingPipeline pipeline, int? newline, out SamplingParameters parameters)
    {
        parameters = default;

        // A pipeline with state draws its tokens one after the other, in an order that only the caller of Sample knows.
        if (pipeline.Guard is not null && !_rows.TryAdd(pipeline, Count))
        {
            KeepLogits(_rows[pipeline]);
            return false;
        }

        try
        {
            return pipeline.TryDescribe(newline, _recent, out parameters);
        }
        catch (InvalidOperationException)
        {
            return false;  // another thread uses the pipeline; if it still does when the token is sampled, that sampling fails
        }
    }
}
