using System.Runtime.InteropServices.Marshalling;

namespace LlamaKivi.Native;

/// <summary>What a model is.</summary>
public sealed record ModelDescription
{
    /// <summary>"llama".</summary>
    public required string Architecture { get; init; }

    /// <summary>Type holding most weight bytes, "Q4_K".</summary>
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

    /// <summary>Elements of one head.</summary>
    public required int HeadSize { get; init; }

    /// <summary>Feed-forward length.</summary>
    public required int FeedForwardSize { get; init; }

    /// <summary>Tokens of the vocabulary, the number of logits.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>Context length the model was trained for.</summary>
    public required int TrainedContextSize { get; init; }

    /// <summary>Scores that <see cref="ContextHandle.RankScores"/> gives; 0: the model is no reranker.</summary>
    public required int RankScoreCount { get; init; }

    /// <summary>Base of the rotary position embedding.</summary>
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

    /// <summary>Whether the handle was disposed of; contexts keep the model.</summary>
    public bool IsDisposed => Handle.IsDisposed;

    internal SafeModelHandle Handle { get; }

    /// <summary>The public type that is named when the model is used after its disposal.</summary>
    internal string Owner
    {
        set => Handle.Owner = value;
    }

    /// <summary>What the model is.</summary>
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
    /// <param name="progress">Called with the fraction done, 0 to 1, on the calling thread; what it throws ends the load and reaches the caller.</param>
    /// <param name="useMmap">Whether weights stay in the mapped file instead of being read into memory.</param>
    /// <param name="gpuLayers">0: the CPU computes. Otherwise so many layers, the last ones, are computed on the GPU and the others on the CPU; -1, or at least the model's layers: all on the GPU.</param>
    /// <param name="vocabularyOnly">Whether to read the metadata alone, of any architecture; such a model has no contexts.</param>
    /// <param name="overrides">Metadata to read instead of the file's: bool, long (or another integer), double (or float) or string by key; later ones of a key win.</param>
    /// <param name="cancellationToken">Ends the load.</param>
    /// <exception cref="ModelLoadException">The file cannot be read or is not valid GGUF.</exception>
    /// <exception cref="UnsupportedModelException">The engine does not implement the model.</exception>
    /// <exception cref="NativeOutOfMemoryException">The weights do not fit in memory.</exception>
    /// <exception cref="OutOfDeviceMemoryException">The weights do not fit in the GPU's memory.</exception>
    /// <exception cref="DeviceException">Layers are asked for on a GPU and there is none to use; the message says why.</exception>
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
