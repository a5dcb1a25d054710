using System.Diagnostics;
using System.Globalization;
using System.Text;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Templates;
using LlamaKivi.TestHelpers;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Tests.Tokenization;

/// <summary>
/// Files with damaged metadata: each loads or is rejected with the library's own exception, and a loaded model is usable.
/// LLAMA_KIVI_FUZZ_SECONDS extends the run, with other seeds.
/// </summary>
public class MetadataFuzzTests(ITestOutputHelper output)
{
    private static readonly string[] Texts =
    [
        "", " ", "a", "a b", " a", "b ", "▁", "Ġ", "<0x41>", "<0xZZ>", "<s>", "</s>", "<|im_end|>", "<|end|>", "llama", "gpt2", "no_vocab", "default", "llama-bpe", "falcon", "{{ messages }}", "{% if", "{{ l.x.y }}",
        "{{ bos_token ~ messages[0].content }}", "{% set l = [1] %}{% set _ = l.append(l) %}{{ l }}", "\0", "a\0b", "😀", "\u2028",
    ];

    [Theory]
    [InlineData("llama")]
    [InlineData("gpt2")]
    public void Damaged_metadata_loads_or_is_refused(string model)
    {
        double seconds = double.TryParse(Environment.GetEnvironmentVariable("LLAMA_KIVI_FUZZ_SECONDS"), CultureInfo.InvariantCulture, out double given) ? given : 0;
        long start = Stopwatch.GetTimestamp();
        string path = Path.GetTempFileName();
        var reasons = new Dictionary<string, int>();
        (int loaded, int refused, TimeSpan longest) = (0, 0, TimeSpan.Zero);
        try
        {
            for (int seed = 0; seed < 800 || Stopwatch.GetElapsedTime(start).TotalSeconds < seconds; seed++)
            {
                File.WriteAllBytes(path, Damaged(Vocabulary(model), new Random(seed)));
                long begin = Stopwatch.GetTimestamp();
                try
                {
                    Use(path);
                    loaded++;
                }
                catch (Exception e) when (e is LoadWeightsFailedException or TemplateException or TemplateNotFoundException)
                {
                    // A template exception may wrap an unexpected one.
                    Assert.True(e is not TemplateException || e.InnerException is null or TemplateException, $"seed {seed}: {e.InnerException}");
                    refused++;
                    string reason = e.GetType().Name + ": " + new string([.. e.Message.Replace(path, "FILE", StringComparison.Ordinal).Where(c => c is >= ' ' and <= '~' && !char.IsDigit(c)).Take(70)]);
                    reasons[reason] = reasons.GetValueOrDefault(reason) + 1;
                }
                catch (Exception e)
                {
                    Assert.Fail($"seed {seed}: {e}");
                }

                longest = Stopwatch.GetElapsedTime(begin) is var took && took > longest ? took : longest;
            }
        }
        finally
        {
            File.Delete(path);
        }

        output.WriteLine($"{model}: {loaded} loaded, {refused} refused; the longest took {longest.TotalSeconds:F2} s");
        output.WriteLine(string.Join('\n', reasons.OrderByDescending(reason => reason.Value).Take(60).Select(reason => $"{reason.Value,8} {reason.Key}")));
        Assert.True(loaded > 150 && refused > 150);
    }

    [Fact]
    public void A_name_that_many_tokens_have_does_not_make_loading_quadratic()
    {
        // In the harmony format, other tokens determine whether this one ends a turn.
        var same = Enumerable.Repeat(("<|end|>", 0f, TokenType.Control), 200_000).ToArray();
        TimeSpan start = ThreadTime.Now;
        Assert.NotNull(TestVocabulary.SentencePiece(true, same).Load().EotId);
        Assert.InRange((ThreadTime.Now - start).TotalSeconds, 0, 20);
    }

    [Theory]
    [InlineData("{{ bos_token }}\n{{ l.x.y }}", ", chat template: 'l' is undefined. (Line 2 of the template.)")]
    [InlineData("{% if x %}", ", chat template: The template cannot be parsed: '{% endif %}' is missing (line 1, column 11).")]
    public void An_error_in_a_files_template_names_the_file_and_the_place(string template, string expected)
    {
        List<(byte[] Key, object Value)> entries = Vocabulary("llama");
        entries[entries.FindIndex(entry => entry.Key.AsSpan().SequenceEqual("tokenizer.chat_template"u8))] = ([.. "tokenizer.chat_template"u8], Encoding.UTF8.GetBytes(template));
        string path = Path.GetTempFileName();
        try
        {
            File.WriteAllBytes(path, Bytes(entries));
            using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(path) { VocabOnly = true });
            Assert.Equal(Path.GetFileName(path) + expected, Assert.Throws<TemplateException>(() => new LLamaTemplate(weights).Add("user", "Hi").Apply().Length).Message);
        }
        finally
        {
            File.Delete(path);
        }
    }

    // Uses everything that reads a file's metadata.
    private static void Use(string path)
    {
        using (GgufFile file = GgufFile.Open(path))
        {
            foreach (GgufEntry entry in file.Entries)
            {
                _ = (file.GetValue(entry.Key), file.GetString(entry.Key), file.GetStrings(entry.Key), file.GetInteger(entry.Key), file.GetNumber(entry.Key), file.GetBool(entry.Key), file.GetArray<int>(entry.Key));
            }
        }

        using LLamaWeights weights = LLamaWeights.LoadFromFile(new ModelParams(path) { VocabOnly = true });
        Tokenizer tokenizer = weights.Tokenizer;
        if (tokenizer.HasTexts)
        {
            foreach (bool special in (bool[])[false, true])
            {
                int[] ids = tokenizer.Encode("Hello  a b <s> <|im_end|> é 😀 \ud800 \0 日本", addBos: true, special);
                _ = (tokenizer.Decode(ids, special), ids.Select(tokenizer.GetText).ToArray(), ids.Select(tokenizer.ScoreOf).ToArray());
            }

            _ = (Enumerable.Range(0, tokenizer.VocabularySize).Select(id => tokenizer.AttributesOf(id)).ToArray(), tokenizer.TokensWith(["a"]));
        }

        SafeLlamaModelHandle handle = weights.NativeHandle;
        _ = (weights.Metadata.Count, handle.ReadMetadata(), handle.MetadataKeyByIndex(0), handle.MetadataValueByIndex(0), handle.Description, weights.ContextSize);
        _ = new LLamaTemplate(weights, strict: false).Add("user", "Hi").Apply().Length;
        _ = new LLamaTemplate(handle, "tool_use", strict: false).Add("user", "Hi").Apply().Length;
    }

    private static List<(byte[] Key, object Value)> Vocabulary(string model)
    {
        static byte[] Utf8(string text) => Encoding.UTF8.GetBytes(text);
        var entries = new List<(byte[] Key, object Value)>();
        void Set(string key, object value) => entries.Add((Utf8(key), value is string text ? Utf8(text) : value is string[] texts ? texts.Select(Utf8).ToArray() : value));
        Set("general.architecture", "llama");
        Set("general.name", "Fuzz");
        foreach ((string key, uint value) in (ReadOnlySpan<(string, uint)>)[("context_length", 64), ("embedding_length", 64), ("block_count", 1), ("feed_forward_length", 64), ("attention.head_count", 2), ("attention.head_count_kv", 1), ("rope.dimension_count", 32)])
        {
            Set("llama." + key, value);
        }

        Set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
        Set("tokenizer.ggml.model", model);
        Set("tokenizer.chat_template", "{% for m in messages %}{{ bos_token }}<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}{% endfor %}");
        Set("tokenizer.chat_template.tool_use", "{{ tools | tojson }}");
        string[] special = ["<unk>", "<s>", "</s>", "<|im_end|>", "<|end|>"];
        string[] pieces = model == "llama" ? [.. Enumerable.Range(0, 256).Select(value => $"<0x{value:X2}>"), "▁", "a", "▁a", "b", "é"]
            : [.. Enumerable.Range(0, 256).Select(value => ByteLevel.ToChar((byte)value).ToString()), "ab", "abc", "Ġa"];
        Set("tokenizer.ggml.tokens", special.Concat(pieces).ToArray());
        Set("tokenizer.ggml.token_type", special.Select(_ => 3).Concat(pieces.Select(piece => model == "llama" && piece.StartsWith("<0x", StringComparison.Ordinal) ? 6 : 1)).ToArray());
        Set("tokenizer.ggml.scores", special.Concat(pieces).Select((_, i) => (float)-i).ToArray());
        Set("tokenizer.ggml.merges", new[] { "a b", "ab c", "Ġ a" });
        Set("tokenizer.ggml.pre", "default");
        foreach ((string key, uint id) in (ReadOnlySpan<(string, uint)>)[("bos", 1), ("eos", 2), ("eot", 3), ("unknown", 0), ("padding", 0)])
        {
            Set($"tokenizer.ggml.{key}_token_id", id);
        }

        Set("tokenizer.ggml.add_bos_token", true);
        Set("tokenizer.ggml.add_eos_token", false);
        return entries;
    }

    private static byte[] Damaged(List<(byte[] Key, object Value)> entries, Random random)
    {
        for (int changes = random.Next(1, 4); changes > 0; changes--)
        {
            // Prefers entries that managed code reads; the engine validates the rest.
            int at = random.Next(entries.Count);
            for (int tries = 0; tries < 4 && !entries[at].Key.AsSpan().StartsWith("tokenizer"u8); tries++)
            {
                at = random.Next(entries.Count);
            }

            (byte[] key, object value) = entries[at];
            switch (random.Next(20))
            {
                case 0:
                    entries.RemoveAt(at);
                    break;
                case 1:
                    entries.Add((random.Next(2) == 0 ? [.. key, (byte)'.', (byte)'x'] : [.. key, 0, 1], Value(random)));
                    break;
                case 2:
                    byte[] other = [.. key];
                    other[random.Next(other.Length)] = (byte)random.Next(256);
                    entries[at] = (other, value);
                    entries.Add(([.. other[..^1], 0xFF], value));
                    break;
                case < 12 when value is byte[]:
                    entries[at] = (key, Text(random));
                    break;
                case < 16 when value is uint:
                    entries[at] = (key, (uint)random.Next(300));
                    break;
                case < 16 when value is Array { Length: > 0 } array and not byte[]:
                    entries[at] = (key, Changed(array, random));
                    break;
                default:
                    entries[at] = (key, Value(random));
                    break;
            }
        }

        byte[] bytes = Bytes(entries);
        for (int flips = random.Next(10) == 0 ? random.Next(1, 8) : 0; flips > 0; flips--)
        {
            bytes[random.Next(8, bytes.Length)] = (byte)random.Next(256);
        }

        return random.Next(50) == 0 ? bytes[..random.Next(bytes.Length)] : bytes;
    }

    private static Array Changed(Array array, Random random)
    {
        Type type = array.GetType().GetElementType()!;
        int length = random.Next(8) == 0 ? random.Next(array.Length + 3) : array.Length;
        Array changed = Array.CreateInstance(type, length);
        Array.Copy(array, changed, Math.Min(length, array.Length));
        for (int i = 0; i < length; i++)
        {
            if (i >= array.Length || random.Next(length) < 3)
            {
                object element = type == typeof(byte[]) ? Text(random)
                    : type == typeof(float) ? ((float[])[float.NaN, float.PositiveInfinity, float.NegativeInfinity, float.MaxValue, 0])[random.Next(5)]
                    : type == typeof(int) ? (random.Next(8) == 0 ? random.Next(-1, 9) : random.Next(1, 6)) : array.GetValue(random.Next(array.Length))!;
                changed.SetValue(element, i);
            }
        }

        return changed;
    }

    private static byte[] Text(Random random)
    {
        byte[] text = Encoding.UTF8.GetBytes(Texts[random.Next(Texts.Length)]);
        return random.Next(4) == 0 ? [.. text, (byte)random.Next(128, 256)] : text;
    }

    private static object Value(Random random) => random.Next(16) switch
    {
        0 => (byte)random.Next(256),
        1 => (sbyte)random.Next(-128, 128),
        2 => (ushort)random.Next(65536),
        3 => (short)random.Next(-32768, 32768),
        4 => uint.MaxValue - (uint)random.Next(2),
        5 => random.Next(-2, 3),
        6 => ulong.MaxValue - (ulong)random.Next(2),
        7 => long.MinValue + random.Next(2),
        8 => float.NaN,
        9 => double.PositiveInfinity,
        10 => random.Next(2) == 0,
        11 => new int[random.Next(4)],
        12 => new float[random.Next(4)],
        13 => Enumerable.Range(0, random.Next(4)).Select(_ => Text(random)).ToArray(),
        14 => new[] { new[] { 1, 2 }, new[] { 3 } },
        _ => Text(random),
    };

    private static byte[] Bytes(List<(byte[] Key, object Value)> entries)
    {
        var stream = new MemoryStream();
        using var writer = new BinaryWriter(stream);
        writer.Write("GGUF"u8);
        writer.Write(3u);
        writer.Write(0L);  // tensors
        writer.Write((long)entries.Count);
        foreach ((byte[] key, object value) in entries)
        {
            WriteText(key);
            writer.Write((uint)TypeOf(value.GetType()));
            WriteValue(value);
        }

        return stream.ToArray();

        void WriteText(byte[] text)
        {
            writer.Write((ulong)text.Length);
            writer.Write(text);
        }

        void WriteValue(object value)
        {
            switch (value)
            {
                case byte[] text: WriteText(text); break;
                case byte n: writer.Write(n); break;
                case sbyte n: writer.Write(n); break;
                case ushort n: writer.Write(n); break;
                case short n: writer.Write(n); break;
                case uint n: writer.Write(n); break;
                case int n: writer.Write(n); break;
                case float x: writer.Write(x); break;
                case bool flag: writer.Write(flag); break;
                case ulong n: writer.Write(n); break;
                case long n: writer.Write(n); break;
                case double x: writer.Write(x); break;
                case Array array:
                    writer.Write((uint)TypeOf(array.GetType().GetElementType()!));
                    writer.Write((ulong)array.Length);
                    foreach (object element in array)
                    {
                        WriteValue(element);
                    }

                    break;
            }
        }
    }

    private static lk_value_type TypeOf(Type type) => Type.GetTypeCode(type) switch
    {
        TypeCode.Byte => lk_value_type.LK_VALUE_UINT8,
        TypeCode.SByte => lk_value_type.LK_VALUE_INT8,
        TypeCode.UInt16 => lk_value_type.LK_VALUE_UINT16,
        TypeCode.Int16 => lk_value_type.LK_VALUE_INT16,
        TypeCode.UInt32 => lk_value_type.LK_VALUE_UINT32,
        TypeCode.Int32 => lk_value_type.LK_VALUE_INT32,
        TypeCode.Single => lk_value_type.LK_VALUE_FLOAT32,
        TypeCode.Boolean => lk_value_type.LK_VALUE_BOOL,
        TypeCode.UInt64 => lk_value_type.LK_VALUE_UINT64,
        TypeCode.Int64 => lk_value_type.LK_VALUE_INT64,
        TypeCode.Double => lk_value_type.LK_VALUE_FLOAT64,
        _ => type == typeof(byte[]) ? lk_value_type.LK_VALUE_STRING : lk_value_type.LK_VALUE_ARRAY,
    };
}
