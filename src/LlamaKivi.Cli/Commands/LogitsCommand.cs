using System.Buffers.Binary;
using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi logits`: logits of every token of a sequence, as a NumPy file.</summary>
internal static class LogitsCommand
{
    private const int DefaultChunk = 128;

    public static Command Create()
    {
        var common = new CommonOptions();
        var list = new Option<string>("--ids") { Description = "Token ids such as 1,2,3; @FILE reads them from a file, @- from standard input", Required = true };
        var output = new Option<string>("--output", "-o") { Description = "Output file: .npy, float32 [tokens, vocabulary]", Required = true };
        var type = new Option<string>("--kv-cache") { Description = $"KV cache type: {string.Join(", ", KvCacheType.Names)}", DefaultValueFactory = _ => "f16" };
        var chunk = NumberOptions.Whole("--chunk", null, "Tokens decoded at once", 1, int.MaxValue, DefaultChunk);
        var command = new Command("logits", "Write the logits of every token; needs no vocabulary");
        CommonOptions.Add(command, [common.Model, list, output, type, chunk, .. common.Context, common.Json]);
        return command.Do(async (parsed, cancellationToken) =>
        {
            KvCacheParams cache = common.Cache(parsed, type);
            int step = parsed.GetValue(chunk);
            int[] ids = await ReadIdsAsync(parsed.GetValue(list)!, cancellationToken).ConfigureAwait(false);
            ModelParams parameters = common.Parameters(parsed);
            parameters.KvCache = cache;
            string path = parsed.GetValue(output)!;
            int vocabulary = await Terminal.WithProgress($"logits of {ids.Length} tokens", progress => Task.Run(
                () => Write(parameters, ids, path, step, progress, cancellationToken), cancellationToken)).ConfigureAwait(false);
            if (parsed.GetValue(common.Json))
            {
                Json.Write(writer =>
                {
                    writer.WriteStartObject();
                    writer.WriteString("output", path);
                    writer.WriteNumber("tokens", ids.Length);
                    writer.WriteNumber("vocabulary", vocabulary);
                    writer.WriteEndObject();
                });
            }

            return ExitCode.Ok;
        });
    }

    private static async Task<int[]> ReadIdsAsync(string list, CancellationToken cancellationToken)
    {
        string text = list.StartsWith('@') ? await TextInput.ReadAsync(list[1..], cancellationToken).ConfigureAwait(false) : list;
        int[] ids = [.. text.Split([',', ' ', '\t', '\r', '\n'], StringSplitOptions.RemoveEmptyEntries).Select(part =>
            int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? id : throw new UsageException($"--ids: '{part}' is not a token id"))];
        return ids.Length > 0 ? ids : throw new UsageException("--ids is empty; list token ids");
    }

    // Returns the vocabulary size.
    private static int Write(ModelParams parameters, int[] ids, string path, int step, IProgress<float> progress, CancellationToken cancellationToken)
    {
        using ModelHandle model = ModelLoader.Open(parameters, token: cancellationToken);
        using ContextHandle context = ContextHandle.Create(
            model, ContextOptionsFactory.Create(parameters.KvCache) with { ContextSize = ids.Length, Threads = parameters.Threads ?? 0, BatchInvariant = parameters.BatchInvariant });
        int wrong = Array.FindIndex(ids, id => id >= context.VocabularySize);
        if (wrong >= 0)
        {
            throw new UsageException($"--ids: token {wrong} is {ids[wrong]}; this model's ids are 0 to {context.VocabularySize - 1}");
        }

        WholeFile.Write(path, file =>
        {
            file.Write(NpyHeader(ids.Length, context.VocabularySize));
            byte[] outputs = new byte[Math.Min(step, ids.Length)];
            Array.Fill(outputs, (byte)1);
            float[] row = new float[context.VocabularySize];
            for (int at = 0; at < ids.Length; at += step)
            {
                int n = Math.Min(step, ids.Length - at);
                context.Decode(ids.AsSpan(at, n), outputs: outputs.AsSpan(0, n), cancellationToken: cancellationToken);
                for (int i = 0; i < n; i++)
                {
                    context.CopyLogits(i, row);
                    file.Write(MemoryMarshal.AsBytes(row.AsSpan()));
                }

                progress.Report((float)(at + n) / ids.Length);
            }
        });
        return context.VocabularySize;
    }

    // NumPy format 1.0: magic, version, header length, Python dictionary; padded to a multiple of 64 bytes.
    private static byte[] NpyHeader(int rows, int columns)
    {
        const int Fixed = 10;
        string text = $"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}";
        int length = (Fixed + text.Length + 1 + 63) / 64 * 64;
        byte[] header = new byte[length];
        header[0] = 0x93;
        Encoding.ASCII.GetBytes("NUMPY", header.AsSpan(1));
        header[6] = 1;
        BinaryPrimitives.WriteUInt16LittleEndian(header.AsSpan(8), (ushort)(length - Fixed));
        header.AsSpan(Fixed).Fill((byte)' ');
        Encoding.ASCII.GetBytes(text, header.AsSpan(Fixed));
        header[^1] = (byte)'\n';
        return header;
    }
}
