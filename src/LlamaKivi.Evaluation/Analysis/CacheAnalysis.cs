using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Evaluation;

/// <summary>
/// Magnitudes of a model's keys and values, and the errors that quantizing them causes in them and in attention. Memory: one layer of one window, plus the sums.
/// Attention is computed for 32 positions in the second half of each window.
/// </summary>
public sealed class CacheAnalysis
{
    private readonly ModelDescription _model;
    private readonly Lock _gate = new();
    private readonly SortedDictionary<int, CacheErrors[]> _errors = [];
    private readonly SortedDictionary<int, LayerProfile> _profiles = [];
    private readonly SortedDictionary<int, MagnitudeMap> _maps = [];

    /// <summary>Creates an empty analysis.</summary>
    /// <param name="model">The model.</param>
    /// <param name="variants">Quantization variants of keys and values.</param>
    /// <param name="layers">Indexes of the layers to measure.</param>
    /// <exception cref="ArgumentException">The model does not have one of the layers.</exception>
    public CacheAnalysis(ModelDescription model, IReadOnlyList<CacheVariant> variants, IReadOnlyList<int> layers)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(variants);
        ArgumentNullException.ThrowIfNull(layers);
        (_model, Variants, Layers) = (model, variants, layers);
        foreach (int layer in layers)
        {
            if (layer < 0 || layer >= model.LayerCount)
            {
                throw new ArgumentException($"{layer} is not a layer; this model has layers 0 to {model.LayerCount - 1}", nameof(layers));
            }

            _errors[layer] = [.. variants.Select(_ => new CacheErrors())];
            _profiles[layer] = new LayerProfile(model.KvHeadCount, model.HeadSize);
        }
    }

    /// <summary>Quantization variants.</summary>
    public IReadOnlyList<CacheVariant> Variants { get; }

    /// <summary>Indexes of the measured layers, in the given order.</summary>
    public IReadOnlyList<int> Layers { get; }

    /// <summary>Whether to keep a <see cref="MagnitudeMap"/> of each layer.</summary>
    public bool KeepMaps { get; init; }

    /// <summary>Magnitudes by layer.</summary>
    public IReadOnlyDictionary<int, LayerProfile> Profiles => _profiles;

    /// <summary>Maps by layer; empty if <see cref="KeepMaps"/> is false.</summary>
    public IReadOnlyDictionary<int, MagnitudeMap> Maps => _maps;

    /// <summary>Decodes the windows of a text and adds the layers' keys, values and queries to the analysis.</summary>
    /// <param name="weights">The model.</param>
    /// <param name="parameters">Context parameters; the sizes are replaced by the window size. Exact keys and values need an f16 cache.</param>
    /// <param name="tokens">Token ids; a last, partial window is not used.</param>
    /// <param name="windowSize">Window size in tokens. A multiple of 128 fills the groups of all variants.</param>
    /// <param name="progress">Receives the fraction done, 0 to 1.</param>
    /// <param name="cancellationToken">Cancels the analysis.</param>
    /// <exception cref="ArgumentOutOfRangeException">The window is smaller than 1.</exception>
    /// <exception cref="OperationCanceledException">The analysis was cancelled.</exception>
    public void Add(LLamaWeights weights, ModelParams parameters, int[] tokens, int windowSize, IProgress<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(weights);
        ArgumentNullException.ThrowIfNull(parameters);
        ArgumentNullException.ThrowIfNull(tokens);
        ArgumentOutOfRangeException.ThrowIfLessThan(windowSize, 1);
        uint size = (uint)windowSize;
        using LLamaContext context = weights.CreateContext(parameters with { ContextSize = size, BatchSize = size, UBatchSize = size });
        int windows = tokens.Length / windowSize;
        int done = 0;
        context.Handle.Observe(seen =>
        {
            if (_profiles.ContainsKey(seen.Layer))
            {
                if (KeepMaps && !_maps.ContainsKey(seen.Layer))
                {
                    _maps[seen.Layer] = MagnitudeMap.Sample(seen, _model);
                }

                Add(seen.Layer, seen.Queries, seen.Keys, seen.Values, seen.RowCount, cancellationToken);
            }

            progress?.Report(++done / (float)(windows * _model.LayerCount));
        });
        for (int i = 0; i < windows; i++)
        {
            context.Handle.SeqTruncate(0, 0);
            context.Handle.Decode(tokens.AsSpan(i * windowSize, windowSize), cancellationToken: cancellationToken);
        }
    }

    /// <summary>Errors of a variant in a layer.</summary>
    /// <param name="layer">Index of the layer, one of <see cref="Layers"/>.</param>
    /// <param name="variant">Index in <see cref="Variants"/>.</param>
    /// <exception cref="KeyNotFoundException">The layer is not measured.</exception>
    public CacheErrors Errors(int layer, int variant) => _errors[layer][variant];

    /// <summary>Errors of a variant over all layers.</summary>
    /// <param name="variant">Index in <see cref="Variants"/>.</param>
    public CacheErrors Total(int variant)
    {
        var sums = new CacheErrors();
        foreach (CacheErrors[] layer in _errors.Values)
        {
            sums.Add(layer[variant]);
        }

        return sums;
    }

    // One window of one sequence, all rows of a layer.
    private void Add(int layer, ReadOnlySpan<float> queries, ReadOnlySpan<float> keys, ReadOnlySpan<float> values, int rows, CancellationToken cancellationToken)
    {
        _profiles[layer].Add(keys, values, rows);
        float[] q = queries.ToArray();
        float[] k = keys.ToArray();
        float[] v = values.ToArray();
        AttentionHead[] heads = [.. Enumerable.Range(0, _model.KvHeadCount).Select(head => new AttentionHead(_model, q, k, v, rows, head))];
        Parallel.For(0, Variants.Count, new ParallelOptions { CancellationToken = cancellationToken }, index =>
        {
            CacheVariant variant = Variants[index];
            float[] storedKeys = k;
            float[] storedValues = v;
            if (variant.Cache is { } cache)
            {
                (storedKeys, storedValues) = ((float[])k.Clone(), (float[])v.Clone());
                NativeEngine.CacheRoundTrip(cache, _model.KvHeadCount, _model.HeadSize, storedKeys, storedValues);
            }

            var sums = new CacheErrors();
            for (int head = 0; head < heads.Length; head++)
            {
                heads[head].Measure(variant, storedKeys, storedValues, sums);
            }

            lock (_gate)
            {
                _errors[layer][index].Add(sums);
            }
        });
    }
}
