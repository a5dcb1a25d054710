using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.InteropServices.Marshalling;

namespace LlamaKivi.Native;

/// <summary>Options of <see cref="ModelQuantizer.Quantize"/>.</summary>
public sealed record QuantizeOptions
{
    /// <summary>A type or a mix from <see cref="ModelQuantizer.Types"/>; case is ignored.</summary>
    public string Type { get; init; } = "Q4_K_M";

    /// <summary>Type of the output matrix, such as "Q8_0", or of the token embedding if the model ties the two; null: as in the mix.</summary>
    public string? OutputType { get; init; }

    /// <summary>Type of the token embedding; null: as in the mix.</summary>
    public string? TokenEmbeddingType { get; init; }

    /// <summary>Whether quantized weights may be converted too, which loses quality.</summary>
    public bool AllowRequantize { get; init; } = true;

    /// <summary>Whether to store every matrix in the mix's main type.</summary>
    public bool Pure { get; init; }

    /// <summary>Threads; 0: one per processor.</summary>
    public int Threads { get; init; }
}

/// <summary>Result of <see cref="ModelQuantizer.Quantize"/>.</summary>
/// <param name="BytesBefore">Bytes of all tensors in the input.</param>
/// <param name="BytesAfter">Bytes of all tensors in the output.</param>
/// <param name="Tensors">Number of tensors.</param>
/// <param name="Converted">Tensors whose type changed.</param>
/// <param name="Fallback">Tensors with a wider type than the mix's, because their rows are not a multiple of its block size.</param>
/// <param name="Requantized">Converted tensors that were already quantized.</param>
public sealed record QuantizeResult(long BytesBefore, long BytesAfter, int Tensors, int Converted, int Fallback, int Requantized)
{
    /// <summary>The tensors that <see cref="Fallback"/> counts, in file order.</summary>
    public IReadOnlyList<QuantizeFallback> Fallbacks { get; init; } = [];
}

/// <summary>A tensor whose rows are not a multiple of the block size of the mix's type.</summary>
/// <param name="Tensor">Name of the tensor.</param>
/// <param name="Wanted">The mix's type, such as "Q6_K".</param>
/// <param name="Given">The wider type used, such as "Q8_0".</param>
public sealed record QuantizeFallback(string Tensor, string Wanted, string Given);

/// <summary>Quantizes model files.</summary>
public static unsafe class ModelQuantizer
{
    /// <summary>The supported types and mixes.</summary>
    public static IReadOnlyList<string> Types { get; } = [.. Names()];

    /// <summary>Converts the matrices of a GGUF file and writes the result to another file, which appears complete or not at all. Vectors and metadata are copied.</summary>
    /// <param name="from">The input file.</param>
    /// <param name="to">The output file. An existing file is replaced unless it is read-only; a symbolic link is followed.</param>
    /// <param name="options">Null: the defaults.</param>
    /// <param name="progress">Called with the fraction done, 0 to 1, on the calling thread. Its exceptions stop the conversion and reach the caller.</param>
    /// <param name="cancellationToken">Stops the conversion.</param>
    /// <exception cref="ArgumentException">A type is unknown, or a type requested by name does not fit a tensor's rows; both files are the same; or requantizing is needed but not allowed.</exception>
    /// <exception cref="ModelLoadException">A file cannot be read or written, is not valid GGUF, or contains a weight that the type cannot represent.</exception>
    /// <exception cref="UnsupportedModelException">A tensor has an unknown type.</exception>
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
