using System.Runtime.InteropServices;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Extensions;

/// <summary>Converts context parameters to native options.</summary>
public static class IContextParamsExtensions
{
    /// <summary>Validates the parameters and converts them to native options.</summary>
    /// <exception cref="ArgumentException">A parameter is out of range.</exception>
    /// <exception cref="NotSupportedException">A parameter is not implemented.</exception>
    public static void ToLlamaContextParams(this IContextParams @params, out LLamaContextParams result)
    {
        ArgumentNullException.ThrowIfNull(@params);
        ContextOptions options = ContextOptionsFactory.Create(@params);
        result = new LLamaContextParams
        {
            n_ctx = (uint)options.ContextSize,
            n_batch = @params.BatchSize,
            n_ubatch = (uint)options.MicroBatchSize,
            n_seq_max = (uint)options.ReadySequences,
            n_threads = options.Threads,
            n_threads_batch = options.Threads,
            type_k = options.KeyType,
            type_v = options.ValueType,
            group = (uint)options.GroupSize,
            residual = options.ResidualLength,
            sinks = options.SinkTokens,
            embeddings = @params.Embeddings,
        };
    }
}

/// <summary>Converts model parameters to native options.</summary>
public static class IModelParamsExtensions
{
    /// <summary>Validates the parameters and converts them to native options.</summary>
    /// <returns>Keeps <see cref="LLamaModelParams.tensor_split"/> and <see cref="LLamaModelParams.kv_overrides"/> valid until it is disposed.</returns>
    /// <exception cref="NotSupportedException">A parameter is not implemented.</exception>
    /// <exception cref="ArgumentException">A metadata override exceeds the maximum length of llama.cpp's layout.</exception>
    public static IDisposable ToLlamaModelParams(this IModelParams @params, out LLamaModelParams result)
    {
        ArgumentNullException.ThrowIfNull(@params);
        int gpuLayers = ModelLoader.GpuLayers(@params);
        LLamaModelMetadataOverride[] values = [.. @params.MetadataOverrides.Select(LLamaModelMetadataOverride.From), default];
        var overrides = new Pinned(values, null);
        var splits = new Pinned(@params.TensorSplits.ToArray(), overrides);
        result = new LLamaModelParams
        {
            n_gpu_layers = gpuLayers,
            split_mode = @params.SplitMode ?? GPUSplitMode.Layer,
            main_gpu = @params.MainGpu,
            tensor_split = splits.Address,
            kv_overrides = overrides.Address,
            load_mode = @params.LoadMode,
            vocab_only = @params.VocabOnly,
            load_mtp = @params.LoadMTP,
            check_tensors = @params.CheckTensors,
        };
        return splits;
    }

    private sealed class Pinned(Array values, Pinned? next) : IDisposable
    {
        private GCHandle _handle = GCHandle.Alloc(values, GCHandleType.Pinned);

        public nint Address => _handle.AddrOfPinnedObject();

        public void Dispose()
        {
            if (_handle.IsAllocated)
            {
                _handle.Free();
            }

            next?.Dispose();
        }
    }
}
