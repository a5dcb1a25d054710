using System.CommandLine;
using System.Globalization;
using System.Numerics.Tensors;
using LlamaKivi.Common;
using LlamaKivi.Native;
using LlamaKivi.Tokenization;
using Spectre.Console;

namespace LlamaKivi.Cli;

/// <summary>`llama-kivi retrieval`: whether a model finds a number that stands somewhere in a long text, by length and KV cache type.</summary>
/// <remarks>
/// The text goes in in chunks no longer than the residual, so that the number is read back from the cache. A case is right if greedy decoding would write the whole
/// number. Cases ask in turn for a pass key and for a secret code with a name; cases differ in where the number stands.
/// </remarks>
internal static class RetrievalCommand
{
    public sealed record Row(string KvCache, int Depth, int Cases, int Correct)
    {
        public double Accuracy => (double)Correct / Cases;

        public double StandardError => Math.Sqrt(Accuracy * (1 - Accuracy) / Cases);
    }

    // Token ids of a case: a text, a question, and the answer that should follow.
    private sealed record Case(int[] Prompt, int[] Answer);

    public static Command Create()
    {
        var common = new CommonOptions();
        var depths = new Option<string>("--depths") { Description = "Tokens of the text, such as 512,1024 or 512..4096 (doubling)", DefaultValueFactory = _ => "512..2048" };
        var count = NumberOptions.Whole("--cases", null, "Cases of each depth", 1, int.MaxValue, 20);
        var seed = NumberOptions.Whole("--seed", "-s", "Seed of the texts and numbers", 0, int.MaxValue, 1);
        var types = new Option<string>("--kv-cache") { Description = "KV cache types, such as f16,kivi2", DefaultValueFactory = _ => "f16,kivi2" };
        var command = new Command("retrieval", "Measure whether a number in a long text is found, by length and KV cache type");
        CommonOptions.Add(command, common.Model, depths, count, seed, types, common.Threads, common.GpuLayers, common.Group, common.Residual, common.Sinks, common.Json);
        return command.Do(async (parsed, cancellationToken) =>
        {
            List<(string Name, KvCacheParams Params)> caches = common.Caches(parsed, parsed.GetValue(types)!);
            int[] lengths = ReadDepths(parsed.GetValue(depths)!);
            int cases = parsed.GetValue(count);
            int step = Math.Min(PerplexityCommand.LongestChunk, parsed.GetValue(common.Residual));
            ModelParams parameters = common.Parameters(parsed);
            parameters.ContextSize = (uint)lengths.Max() + 64;
            caches = CommonOptions.Fitting(parsed, types, parameters.ModelPath, caches);
            using LLamaWeights weights = await Terminal.LoadAsync(parameters, cancellationToken).ConfigureAwait(false);
            var rows = new List<Row>();
            foreach ((string name, KvCacheParams cache) in caches)
            {
                parameters.KvCache = cache;
                using LLamaContext context = weights.CreateContext(parameters);
                foreach (int depth in lengths)
                {
                    rows.Add(await Terminal.WithProgress($"{name} @ {depth}", report => Task.Run(
                        () => Measure(name, context, depth, cases, parsed.GetValue(seed), step, report, cancellationToken), cancellationToken)).ConfigureAwait(false));
                }
            }

            Write(rows, parsed.GetValue(common.Json));
            return ExitCode.Ok;
        });
    }

    private static int[] ReadDepths(string text)
    {
        if (text.Split("..") is not [string first, string last])
        {
            return CommonOptions.Counts(text, "--depths");
        }

        int from = CommonOptions.Counts(first, "--depths")[0];
        int to = CommonOptions.Counts(last, "--depths")[0];
        var depths = new List<int>();
        for (long depth = from; depth <= to; depth *= 2)
        {
            depths.Add((int)depth);
        }

        return depths.Count > 0 ? [.. depths] : throw new UsageException($"--depths: {text} is empty; the first depth must not exceed the last");
    }

    public static Row Measure(
        string name, LLamaContext context, int depth, int cases, int seed, int step, IProgress<float> progress, CancellationToken cancellationToken)
    {
        int correct = 0;
        for (int i = 0; i < cases; i++)
        {
            // The same cases for every cache type.
            Case one = MakeCase(context.Weights.Tokenizer, depth, i, (i + 0.5) / cases, new Random(HashCode(seed, depth, i)));
            context.Handle.SeqTruncate(0, 0);
            int[] read = [.. one.Prompt, .. one.Answer.AsSpan(0, one.Answer.Length - 1)];
            int first = one.Prompt.Length - 1;  // its logits are about the first token of the answer
            bool right = true;
            for (int at = 0; at < read.Length; at += step)
            {
                int n = Math.Min(step, read.Length - at);
                byte[] outputs = new byte[n];
                outputs.AsSpan(Math.Clamp(first - at, 0, n)).Fill(1);
                context.Handle.Decode(read.AsSpan(at, n), outputs: outputs, cancellationToken: cancellationToken);
                for (int t = Math.Max(0, first - at); t < n; t++)
                {
                    right &= TensorPrimitives.IndexOfMax<float>(context.Handle.Logits(t)) == one.Answer[at + t - first];
                }
            }

            correct += right ? 1 : 0;
            progress.Report((float)(i + 1) / cases);
        }

        return new Row(name, depth, cases, correct);
    }

    private static int HashCode(int seed, int depth, int index) => unchecked((((seed * 31) + depth) * 1_000_003) + index);

    private static Case MakeCase(Tokenizer tokenizer, int depth, int index, double position, Random random)
    {
        string number = random.Next(10_000, 1_000_000).ToString(CultureInfo.InvariantCulture);
        (string fact, string question) = (index % 2) switch
        {
            0 => ($"\n\nThe pass key is {number}. Remember it. {number} is the pass key.\n\n", "\n\nWhat is the pass key? The pass key is"),
            _ => CodeForm(number, random),
        };
        int[] Ids(string text) => tokenizer.Encode(text, addBos: false, parseSpecial: false);
        int[] factIds = Ids(fact);
        int[] questionIds = Ids(question);
        int[] start = tokenizer.AddBos && tokenizer.BosId is { } bos ? [bos] : [];
        int room = depth - start.Length - factIds.Length - questionIds.Length;
        if (room < 16)
        {
            throw new UsageException($"--depths: {depth} tokens are too few for a fact and a question; give at least {depth - room + 16}");
        }

        var filler = new FillerText(random);
        var text = new List<int>();
        while (text.Count < room)
        {
            text.AddRange(Ids(filler.Paragraph()));
        }

        int at = (int)(position * room);
        int[] prompt = [.. start, .. text[..at], .. factIds, .. text[at..room], .. questionIds];
        return new Case(prompt, Ids($" {number}."));
    }

    private static (string Fact, string Question) CodeForm(string number, Random random)
    {
        string[] first = ["silver", "quiet", "northern", "hollow", "amber", "distant", "velvet", "crooked"];
        string[] second = ["harbor", "lantern", "orchard", "compass", "meadow", "anchor", "bridge", "falcon"];
        string words = $"{first[random.Next(first.Length)]} {second[random.Next(second.Length)]}";
        return ($"\n\nThe secret code for {words} is {number}.\n\n", $"\n\nQuestion: what is the secret code for {words}? Answer:");
    }

    private static void Write(List<Row> rows, bool json)
    {
        if (json)
        {
            Json.WriteRows(rows, (writer, row) =>
            {
                writer.WriteString("kv_cache", row.KvCache);
                writer.WriteNumber("depth", row.Depth);
                writer.WriteNumber("cases", row.Cases);
                writer.WriteNumber("correct", row.Correct);
                writer.WriteNumber("accuracy", row.Accuracy);
                writer.WriteNumber("stderr", row.StandardError);
            });
            return;
        }

        Table table = new Table().Border(TableBorder.Markdown).AddColumns("KV cache", "depth", "correct", "cases", "accuracy", "+-");
        foreach (Row row in rows)
        {
            string Count(int n) => n.ToString(CultureInfo.InvariantCulture);
            table.AddRow(row.KvCache, Count(row.Depth), Count(row.Correct), Count(row.Cases),
                Terminal.Number(100 * row.Accuracy, 1) + "%", Terminal.Number(100 * row.StandardError, 1) + "%");
        }

        Terminal.Out.Write(table);
    }
}
