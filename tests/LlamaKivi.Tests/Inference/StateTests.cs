using System.Buffers.Binary;
using LlamaKivi.Abstractions;
using LlamaKivi.Common;
using LlamaKivi.Native;

namespace LlamaKivi.Tests;

public sealed class StateTests : IDisposable
{
    private const string Prompt = "The garbage collector";

    private readonly LLamaWeights _weights = LLamaWeights.LoadFromFile(new ModelParams(InferenceTests.DemoModel.Path));
    private readonly string _folder = Directory.CreateTempSubdirectory("llama-kivi-state").FullName;

    public void Dispose()
    {
        _weights.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public void A_write_that_fails_keeps_the_file_that_was_there()
    {
        string file = Path.Combine(_folder, "context");
        File.WriteAllText(file, "before");
        Assert.Throws<InvalidTimeZoneException>(() => WholeFile.Write(file, stream =>
        {
            stream.Write("after"u8);
            throw new InvalidTimeZoneException();
        }));
        Assert.Equal("before", File.ReadAllText(file));
        Assert.Single(Directory.GetFiles(_folder));
        Assert.Contains("is a device", Assert.Throws<IOException>(() => WholeFile.Write("/dev/null", _ => { })).Message, StringComparison.Ordinal);
    }

    // Without the check, a too small number of sequences would silently empty the context.
    [Fact]
    public void A_saved_context_with_another_number_of_sequences_is_refused()
    {
        string file = Path.Combine(_folder, "context");
        using LLamaContext context = Create("f16");
        Feed(context, context.Tokenize(Prompt));
        int before = (int)context.KvCacheUsage.Tokens;
        context.SaveState(file);
        byte[] saved = File.ReadAllBytes(file);
        foreach ((int count, byte[] after, string expected) in new (int, byte[], string)[]
        {
            (0, [], "bytes follow the saved context"),
            (1, [1], "1 bytes follow the saved context"),
            (-1, [], "its number of sequences is -1"),
            (2, saved[12..], "contains sequence 0 twice"),
        })
        {
            byte[] damaged = [.. saved, .. after];
            BinaryPrimitives.WriteInt32LittleEndian(damaged.AsSpan(8), count);
            File.WriteAllBytes(file, damaged);
            string message = Assert.Throws<StateLoadException>(() => context.LoadState(file)).Message;
            Assert.Contains(expected, message, StringComparison.Ordinal);
            Assert.Contains(file, message, StringComparison.Ordinal);
            Assert.Equal(before, (int)context.KvCacheUsage.Tokens);
        }
    }

    [Theory]
    [InlineData("f16")]
    [InlineData("kivi2")]
    [InlineData("q4_0")]
    public void A_saved_context_continues_with_the_same_tokens(string type)
    {
        string file = Path.Combine(_folder, "context");
        using LLamaContext context = Create(type);
        int next = Feed(context, context.Tokenize(Prompt));
        for (int i = 0; i < 200; i++)
        {
            next = Feed(context, [next]);
        }

        context.SaveState(file);
        Assert.Single(Directory.GetFiles(_folder));
        using LLamaContext other = Create(type);
        Feed(other, other.Tokenize("Something else that is forgotten"));
        other.LoadState(file);
        Assert.Equal(context.KvCacheUsage.Tokens, other.KvCacheUsage.Tokens);
        int a = next;
        int b = next;
        for (int i = 0; i < 50; i++)
        {
            a = Feed(context, [a]);
            b = Feed(other, [b]);
            Assert.Equal(a, b);
        }
    }

    [Fact]
    public void A_sequence_can_be_put_elsewhere()
    {
        string file = Path.Combine(_folder, "sequence");
        using LLamaContext context = Create("kivi2");
        Feed(context, context.Tokenize(Prompt));
        context.SaveState(file, (LLamaSeqId)0);
        context.LoadState(file, (LLamaSeqId)1);
        Assert.Equal(context.Handle.SeqLength(0), context.Handle.SeqLength(1));
        using LLamaContext.SequenceState state = context.GetState((LLamaSeqId)1);
        Assert.Equal(File.ReadAllBytes(file), state.Data.ToArray());
    }

    [Fact]
    public void A_state_that_does_not_fit_leaves_the_context_unchanged()
    {
        string file = Path.Combine(_folder, "context");
        using LLamaContext context = Create("kivi2");
        Feed(context, context.Tokenize(Prompt));
        context.SaveState(file);
        byte[] good = File.ReadAllBytes(file);
        using LLamaContext other = Create("kivi4");
        Feed(other, other.Tokenize("Some other words"));
        byte[] before = other.Handle.SeqStateGet(0);

        Assert.Contains("kivi2/kivi2", Assert.Throws<StateLoadException>(() => other.LoadState(file)).Message, StringComparison.Ordinal);
        for (int length = 0; length < good.Length; length += good.Length / 37)
        {
            File.WriteAllBytes(file, good[..length]);
            Assert.Throws<StateLoadException>(() => context.LoadState(file));
        }

        for (int i = 0; i < good.Length; i += good.Length / 41)
        {
            byte[] bad = [.. good];
            bad[i] ^= 4;
            File.WriteAllBytes(file, bad);
            Assert.Throws<StateLoadException>(() => other.LoadState(file));
        }

        Assert.Throws<FileNotFoundException>(() => other.LoadState(Path.Combine(_folder, "nowhere")));
        Assert.Equal(before, other.Handle.SeqStateGet(0));
    }

    [Fact]
    public void A_state_made_with_other_settings_of_the_model_is_refused_by_name()
    {
        string file = Path.Combine(_folder, "context");
        string sequence = Path.Combine(_folder, "sequence");
        using LLamaContext context = Create("kivi2");
        Feed(context, context.Tokenize(Prompt));
        context.SaveState(file);
        context.SaveState(sequence, (LLamaSeqId)0);

        void Refuses(ModelParams parameters, params string[] parts)
        {
            parameters.ContextSize = 1024;
            parameters.SeqMax = 2;
            using LLamaWeights weights = LLamaWeights.LoadFromFile(parameters);
            using LLamaContext other = weights.CreateContext(parameters);
            Feed(other, other.Tokenize("Some other words"));
            byte[] before = other.Handle.SeqStateGet(0);
            foreach (Action load in (Action[])[() => other.LoadState(file), () => other.LoadState(sequence, (LLamaSeqId)0)])
            {
                string message = Assert.Throws<StateLoadException>(load).Message;
                Assert.All(parts, part => Assert.Contains(part, message, StringComparison.Ordinal));
                Assert.Equal(before, other.Handle.SeqStateGet(0));
            }
        }

        string path = InferenceTests.DemoModel.Path;
        Refuses(new ModelParams(path) { RopeFrequencyBase = 12345 }, "RoPE frequency base", "10000 in the state", "12345 here");
        Refuses(new ModelParams(path) { RopeFrequencyScale = 0.5f }, "RoPE scaling", "\"none\" in the state", "\"linear\" here", "2 here");
        Refuses(new ModelParams(path) { YarnScalingType = RopeScalingType.Yarn, RopeFrequencyScale = 0.25f, YarnOriginalContext = 4096 }, "\"yarn\" here", "4 here");
        var overridden = new ModelParams(path);
        overridden.MetadataOverrides.Add(new MetadataOverride("llama.attention.layer_norm_rms_epsilon", 0.25f));
        Refuses(overridden, "norm epsilon", "0.25 here");
        context.LoadState(file);
    }

    [Fact]
    public void A_state_of_another_format_version_is_refused_in_plain_words()
    {
        string file = Path.Combine(_folder, "sequence");
        using LLamaContext context = Create("kivi2");
        Feed(context, context.Tokenize(Prompt));
        context.SaveState(file, (LLamaSeqId)0);
        byte[] state = File.ReadAllBytes(file);
        state[4] = 3;
        File.WriteAllBytes(file, state);
        string message = Assert.Throws<StateLoadException>(() => context.LoadState(file, (LLamaSeqId)0)).Message;
        Assert.Contains("format version 3", message, StringComparison.Ordinal);
        Assert.Contains("reads version 7", message, StringComparison.Ordinal);
    }

    private LLamaContext Create(string type) =>
        _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 1024, SeqMax = 2, KvCache = KvCacheParams.Parse(type) });

    // Decodes tokens in sequence 0; returns the most probable next token.
    private static int Feed(LLamaContext context, LLamaToken[] tokens)
    {
        context.Handle.Decode([.. tokens.Select(token => (int)token)]);
        ReadOnlySpan<float> logits = context.Handle.Logits(tokens.Length - 1);
        return System.Numerics.Tensors.TensorPrimitives.IndexOfMax(logits);
    }
}
