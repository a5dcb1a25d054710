using System.Runtime.InteropServices.Marshalling;

namespace LlamaKivi.Native;

/// <summary>Shape and size of a model.</summary>
public sealed record ModelDescription
{
    /// <summary>Architecture, such as "llama".</summary>
    public required string Architecture { get; init; }

    /// <summary>Type with the most weight bytes, such as "Q4_K".</summary>
    public required string WeightType { get; init; }

    /// <summary>Weight elements.</summary>
    public required long ParameterCount { get; init; }

    /// <summary>Bytes of all tensors.</summary>
    public required long WeightBytes { get; init; }

    /// <summary>Transformer layers.</summary>
    public required int LayerCount { get; init; }

    /// <summary>Embedding length.</summary>
    public required int EmbeddingSize { get; init; }

    /// <summary>Query heads.</summary>
    public required int HeadCount { get; init; }

    /// <summary>KV heads.</summary>
    public required int KvHeadCount { get; init; }

    /// <summary>Elements per head.</summary>
    public required int HeadSize { get; init; }

    /// <summary>Feed-forward length.</summary>
    public required int FeedForwardSize { get; init; }

    /// <summary>Tokens of the vocabulary; length of a row of logits.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Context length the model was trained for.</summary>
    public required int TrainedContextSize { get; init; }

    /// <summary>Scores that <see cref="ContextHandle.RankScores"/> returns; 0: the model is not a reranker.</summary>
    public required int RankScoreCount { get; init; }

    /// <summary>Base of the RoPE frequencies.</summary>
    public required float RopeFrequencyBase { get; init; }
}

/// <summary>A loaded model. Any number of threads and contexts may share it.</summary>
public sealed unsafe class ModelHandle : IDisposable
{
    private readonly Lock _gate = new();
    private readonly string _path;
    private GgufFile? _gguf;

    private ModelHandle(SafeModelHandle handle, string path)
    {
        Handle = handle;
        _path = path;
        lk_model_info info;
        NativeStatus.Check(NativeMethods.lk_model_describe(handle.Pointer, &info));
        Description = new ModelDescription
        {
            Architecture = NativeStatus.Text(info.architecture),
            WeightType = NativeStatus.Text(info.weight_type),
            ParameterCount = (long)info.n_params,
            WeightBytes = (long)info.weight_bytes,
            LayerCount = (int)info.n_layer,
            EmbeddingSize = (int)info.n_embd,
            HeadCount = (int)info.n_head,
            KvHeadCount = (int)info.n_head_kv,
            HeadSize = (int)info.head_size,
            FeedForwardSize = (int)info.n_ff,
            VocabularySize = (int)info.n_vocab,
            TrainedContextSize = (int)info.n_ctx_train,
            RankScoreCount = (int)info.n_rank,
            RopeFrequencyBase = info.rope_freq_base,
        };
    }

    /// <summary>Whether the handle was disposed. Contexts keep the model itself alive.</summary>
    public bool IsDisposed => Handle.IsDisposed;

    internal SafeModelHandle Handle { get; }

    /// <summary>Name of the public type in errors about use after disposal.</summary>
    internal string Owner
    {
        set => Handle.Owner = value;
    }

    /// <summary>Shape and size of the model.</summary>
    public ModelDescription Description { get; }

    /// <summary>The model's file, for its metadata; disposed with the model.</summary>
    public GgufFile Gguf
    {
        get
        {
            lock (_gate)
            {
                return _gguf ??= new GgufFile(new SafeGgufHandle(Handle), _path);
            }
        }
    }

    /// <summary>Loads a model.</summary>
    /// <param name="path">A GGUF file.</param>
    /// <param name="progress">Called with the fraction done, 0 to 1, on the calling thread. Its exceptions stop the load and reach the caller.</param>
    /// <param name="useMmap">Whether weights stay in the mapped file instead of being read into memory.</param>
    /// <param name="gpuLayers">Number of layers on the GPU, counted from the last; the CPU computes the layers before them. 0: the CPU computes everything. -1, or at least the model's number of layers: the GPU computes everything.</param>
    /// <param name="vocabularyOnly">Whether to read only the metadata, of any architecture. Such a model cannot have contexts.</param>
    /// <param name="overrides">Metadata values that replace or extend the file's, by key: bool, long (or another integer), double (or float) or string. The last override of a key wins.</param>
    /// <param name="cancellationToken">Stops the load.</param>
    /// <exception cref="ModelLoadException">The file cannot be read or is not valid GGUF.</exception>
    /// <exception cref="UnsupportedModelException">The engine does not implement the model.</exception>
    /// <exception cref="NativeOutOfMemoryException">The weights do not fit in memory.</exception>
    /// <exception cref="OutOfDeviceMemoryException">The weights do not fit in the GPU's memory.</exception>
    /// <exception cref="DeviceException">Layers on a GPU are requested, but no GPU is usable; the message says why.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static ModelHandle Load(
        string path, Action<float>? progress = null, bool useMmap = true, int gpuLayers = 0, bool vocabularyOnly = false,
        IReadOnlyList<KeyValuePair<string, object>>? overrides = null, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        cancellationToken.ThrowIfCancellationRequested();

        lk_model_params parameters;
        NativeMethods.lk_model_params_default(&parameters);
        parameters.use_mmap = useMmap ? 1u : 0u;
        parameters.n_gpu_layers = gpuLayers;
        parameters.vocab_only = vocabularyOnly ? 1u : 0u;

        using var natives = new MetadataOverrides(overrides ?? []);
        parameters.n_overrides = (uint)natives.Count;
        parameters.overrides = natives.Pointer;
        using var callback = new ProgressCallback(progress, path, cancellationToken);
        parameters.progress = ProgressCallback.Function;
        parameters.progress_user_data = callback.UserData;
        byte* utf8 = Utf8StringMarshaller.ConvertToUnmanaged(path);
        lk_model* model = null;
        try
        {
            lk_status status = NativeMethods.lk_model_load(utf8, &parameters, &model);
            callback.Check(status);
        }
        catch
        {
            NativeMethods.lk_model_free(model);
            throw;
        }
        finally
        {
            Utf8StringMarshaller.Free(utf8);
        }

        var handle = new SafeModelHandle(model);
        try
        {
            return new ModelHandle(handle, path);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    /// <summary>Releases the model once its last context is disposed.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _gguf?.Dispose();
        }

        Handle.Dispose();
    }
}
