using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>Quantizes GGUF models. <see cref="ModelQuantizer"/> has all options, progress and cancellation.</summary>
public static class LLamaQuantizer
{
    /// <summary>Quantizes a model.</summary>
    /// <param name="srcFileName">GGUF file to read.</param>
    /// <param name="dstFilename">File to write, atomically.</param>
    /// <param name="ftype">Target type.</param>
    /// <param name="nthread">Number of threads; 0 or less: one per processor.</param>
    /// <param name="allowRequantize">Whether the source weights may already be quantized.</param>
    /// <param name="quantizeOutputTensor">Whether to quantize a separate output matrix too.</param>
    /// <returns>Always true; failures throw.</returns>
    /// <exception cref="ArgumentException">The engine cannot write the type, both files are the same, or the source is quantized and <paramref name="allowRequantize"/> is false.</exception>
    /// <exception cref="ModelLoadException">A file cannot be read or written, or is not valid GGUF.</exception>
    public static bool Quantize(
        string srcFileName, string dstFilename, LLamaFtype ftype, int nthread = -1, bool allowRequantize = true, bool quantizeOutputTensor = false) =>
        Quantize(srcFileName, dstFilename, NameOf(ftype), nthread, allowRequantize, quantizeOutputTensor);

    /// <summary>Quantizes a model to a type given by name.</summary>
    /// <param name="srcFileName">GGUF file to read.</param>
    /// <param name="dstFilename">File to write, atomically.</param>
    /// <param name="ftype">Target type, one of <see cref="ModelQuantizer.Types"/>, such as "Q4_K_M"; case-insensitive.</param>
    /// <param name="nthread">Number of threads; 0 or less: one per processor.</param>
    /// <param name="allowRequantize">Whether the source weights may already be quantized.</param>
    /// <param name="quantizeOutputTensor">Whether to quantize a separate output matrix too.</param>
    /// <returns>Always true; failures throw.</returns>
    /// <exception cref="ArgumentException">The engine cannot write the type, both files are the same, or the source is quantized and <paramref name="allowRequantize"/> is false.</exception>
    /// <exception cref="ModelLoadException">A file cannot be read or written, or is not valid GGUF.</exception>
    public static bool Quantize(
        string srcFileName, string dstFilename, string ftype, int nthread = -1, bool allowRequantize = true, bool quantizeOutputTensor = false)
    {
        ModelQuantizer.Quantize(srcFileName, dstFilename, new QuantizeOptions
        {
            Type = ftype,
            OutputType = quantizeOutputTensor ? null : OutputType(srcFileName),
            AllowRequantize = allowRequantize,
            Threads = Math.Max(nthread, 0),
        });
        return true;
    }

    // "Q4_K_M" for MOSTLY_Q4_K_M.
    private static string NameOf(LLamaFtype ftype)
    {
        string name = ftype.ToString();
        name = name[(name.IndexOf('_', StringComparison.Ordinal) + 1)..];
        return ModelQuantizer.Types.Contains(name, StringComparer.OrdinalIgnoreCase)
            ? name
            : throw new ArgumentException($"{ftype} is not available; the types are {string.Join(", ", ModelQuantizer.Types)}", nameof(ftype));
    }

    private static string? OutputType(string path)
    {
        using GgufFile file = GgufFile.Open(path);
        return file.Tensors.FirstOrDefault(tensor => tensor.Name == "output.weight")?.TypeName;
    }
}
