using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.InteropServices.Marshalling;

namespace LlamaKivi.Native;

/// <summary>How to write a model with its weights in other formats.</summary>
public sealed record QuantizeOptions
{
    /// <summary>A type or a mix, one of <see cref="ModelQuantizer.Types"/>, in any case.</summary>
    public string Type { get; init; } = "Q4_K_M";

    /// <summary>Type of the output matrix, such as "Q8_0", which is the token embedding in a model that has no other; null: as the mix says.</summary>
    public string? OutputType { get; init; }

    /// <summary>Type of the token embedding; null: as the mix says.</summary>
    public string? TokenEmbeddingType { get; init; }

    /// <summary>Whether weights may be quantized already.</summary>
    public bool AllowRequantize { get; init; } = true;

    /// <summary>Whether every matrix gets the mix's main type.</summary>
    public bool Pure { get; init; }

    /// <summary>Threads; 0: one per processor.</summary>
    public int Threads { get; init; }
}

/// <summary>What <see cref="ModelQuantizer.Quantize"/> did.</summary>
/// <param name="BytesBefore">Bytes of all tensors.</param>
/// <param name="BytesAfter">Bytes of all tensors written.</param>
/// <param name="Tensors">Tensors.</param>
/// <param name="Converted">Tensors that got another type.</param>
/// <param name="Fallback">Tensors whose rows do not fill the blocks of the type that the mix wants: they have a wider one.</param>
/// <param name="Requantized">Tensors that got another type and were quantized before.</param>
public sealed record QuantizeResult(long BytesBefore, long BytesAfter, int Tensors, int Converted, int Fallback, int Requantized)
{
    /// <summary>The tensors that <see cref="Fallback"/> counts, in file order.</summary>
    public IReadOnlyList<QuantizeFallback> Fallbacks { get; init; } = [];
}

/// <summary>A tensor whose rows do not fill the blocks of the type that the mix wants.</summary>
/// <param name="Tensor">The tensor's name.</param>
/// <param name="Wanted">The type that the mix wants, such as "Q6_K".</param>
/// <param name="Given">The wider type that it has instead, such as "Q8_0".</param>
public sealed record QuantizeFallback(string Tensor, string Wanted, string Given);

/// <summary>Writes models with their weights in other formats.</summary>
public static unsafe class ModelQuantizer
{
    /// <summary>The types and mixes that can be written.</summary>
    public static IReadOnlyList<string> Types { get; } = [.. Names()];

    /// <summary>Reads a GGUF file and writes another, which appears whole or not at all. Vectors and metadata stay as they are.</summary>
    /// <param name="from">The file to read.</param>
    /// <param name="to">The file to write; one that is there is replaced unless it is read-only, and a symbolic link is followed.</param>
    /// <param name="options">Null: the defaults.</param>
    /// <param name="progress">Called with the fraction done, 0 to 1, on the calling thread; what it throws ends the work and reaches the caller.</param>
    /// <param name="cancellationToken">Ends the work.</param>
    /// <exception cref="ArgumentException">A type is not known, or was asked for by name and does not fit a tensor's rows; both files are the same, or requantizing is needed and not allowed.</exception>
    /// <exception cref="ModelLoadException">A file cannot be read or written, is not valid GGUF, or holds a weight the type cannot hold.</exception>
    /// <exception cref="UnsupportedModelException">A tensor is of a type that is not known.</exception>
    /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
    public static QuantizeResult Quantize(
        string from, string to, QuantizeOptions? options = null, Action<float>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(from);
        ArgumentException.ThrowIfNullOrEmpty(to);
        options ??= new QuantizeOptions();
        ArgumentOutOfRangeException.ThrowIfNegative(options.Threads, nameof(options));
        cancellationToken.ThrowIfCancellationRequested();

        using var callback = new ProgressCallback(progress, from, cancellationToken);
        string?[] texts = [from, to, options.Type, options.OutputType, options.TokenEmbeddingType];
        byte*[] utf8 = new byte*[texts.Length];
        try
        {
            for (int i = 0; i < texts.Length; i++)
            {
                utf8[i] = Utf8StringMarshaller.ConvertToUnmanaged(texts[i]);
            }

            lk_quantize_params parameters;
            NativeMethods.lk_quantize_params_default(&parameters);
            parameters.type = utf8[2];
            parameters.output_type = utf8[3];
            parameters.token_embedding_type = utf8[4];
            parameters.n_threads = (uint)options.Threads;
            parameters.allow_requantize = options.AllowRequantize ? 1u : 0u;
            parameters.pure = options.Pure ? 1u : 0u;
            parameters.progress = ProgressCallback.Function;
            parameters.progress_user_data = callback.UserData;
            var fallbacks = new List<QuantizeFallback>();
            GCHandle list = GCHandle.Alloc(fallbacks);
            parameters.fallback = &OnFallback;
            parameters.fallback_user_data = (void*)GCHandle.ToIntPtr(list);
            lk_quantize_result result;
            try
            {
                callback.Check(NativeMethods.lk_quantize(utf8[0], utf8[1], &parameters, &result));
            }
            finally
            {
                list.Free();
            }

            return new QuantizeResult(
                (long)result.bytes_before,
                (long)result.bytes_after,
                (int)result.n_tensors,
                (int)result.n_converted,
                (int)result.n_fallback,
                (int)result.n_requantized)
            {
                Fallbacks = fallbacks,
            };
        }
        finally
        {
            foreach (byte* text in utf8)
            {
                Utf8StringMarshaller.Free(text);
            }
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static void OnFallback(byte* tensor, byte* wanted, byte* given, void* userData) =>
        ((List<QuantizeFallback>)GCHandle.FromIntPtr((nint)userData).Target!)
            .Add(new QuantizeFallback(NativeStatus.Text(tensor), NativeStatus.Text(wanted), NativeStatus.Text(given)));

    private static List<string> Names()
    {
        var names = new List<string>();
        for (uint i = 0; NativeMethods.lk_quantization_name(i) is var name && name is not null; i++)
        {
            names.Add(NativeStatus.Text(name));
        }

        return names;
    }
}
