using LlamaKivi.Native;

namespace LlamaKivi;

/// <summary>Writes models with their weights in other formats. See <see cref="ModelQuantizer"/> for all options, progress and cancellation.</summary>
public static class LLamaQuantizer
{
    /// <summary>Quantizes a model.</summary>
    /// <param name="srcFileName">The GGUF file to read.</param>
    /// <param name="dstFilename">The file to write, which appears whole or not at all.</param>
    /// <param name="ftype">What to write.</param>
    /// <param name="nthread">Threads; 0 or less: one per processor.</param>
    /// <param name="allowRequantize">Whether weights may be quantized already.</param>
    /// <param name="quantizeOutputTensor">Whether the output matrix is quantized too, if the model has one of its own.</param>
    /// <returns>True; what goes wrong is thrown.</returns>
    /// <exception cref="ArgumentException">The type is not one that the engine writes, both files are the same, or requantizing is needed and not allowed.</exception>
    /// <exception cref="ModelLoadException">A file cannot be read or written, or is not valid GGUF.</exception>
    public static bool Quantize(
        string srcFileName, string dstFilename, LLamaFtype ftype, int nthread = -1, bool allowRequantize = true, bool quantizeOutputTensor = false) =>
        Quantize(srcFileName, dstFilename, NameOf(ftype), nthread, allowRequantize, quantizeOutputTensor);

    /// <summary>Writes a model file with its weights in another format, named by text.</summary>
    /// <param name="srcFileName">The GGUF file to read.</param>
    /// <param name="dstFilename">The file to write, which appears whole or not at all.</param>
    /// <param name="ftype">One of <see cref="ModelQuantizer.Types"/>, such as "Q4_K_M", in any case.</param>
    /// <param name="nthread">Threads; 0 or less: one per processor.</param>
    /// <param name="allowRequantize">Whether weights may be quantized already.</param>
    /// <param name="quantizeOutputTensor">Whether the output matrix is quantized too, if the model has one of its own.</param>
    /// <returns>True; what goes wrong is thrown.</returns>
    /// <exception cref="ArgumentException">The type is not one that the engine writes, both files are the same, or requantizing is needed and not allowed.</exception>
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

    // "Q4_K_M" of MOSTLY_Q4_K_M.
    private static string NameOf(LLamaFtype ftype)
    {
        string name = ftype.ToString();
        name = name[(name.IndexOf('_', StringComparison.Ordinal) + 1)..];
        return ModelQuantizer.Types.Contains(name, StringComparer.OrdinalIgnoreCase)
            ? name
            : throw new ArgumentException($"{ftype} is not available; there are: {string.Join(", ", ModelQuantizer.Types)}", nameof(ftype));
    }

    private static string? OutputType(string path)
    {
        using GgufFile file = GgufFile.Open(path);
        return file.Tensors.FirstOrDefault(tensor => tensor.Name == "output.weight")?.TypeName;
    }
}
