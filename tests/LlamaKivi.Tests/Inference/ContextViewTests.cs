using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using Xunit;

namespace LlamaKivi.Tests;

/// <summary>Batches, sequences and logits in native-style code.</summary>
public sealed class ContextViewTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private readonly LLamaWeights _weights = model.Weights;

    private LLamaContext Create() => _weights.CreateContext(new ModelParams(InferenceTests.DemoModel.Path) { ContextSize = 512, BatchSize = 64, Threads = 1 });

    private static LLamaBatch Batch(LLamaToken[] tokens, int start, params int[] sequences)
    {
        var batch = new LLamaBatch();
        for (int i = 0; i < tokens.Length; i++)
        {
            batch.Add(tokens[i], start + i, sequences.Select(id => (LLamaSeqId)id).ToList(), i == tokens.Length - 1);
        }

        return batch;
    }

    [Fact]
    public void Sequences_with_a_common_prefix_continue_independently()
    {
        using LLamaContext context = Create();
        LLamaToken[] prompt = context.Tokenize("The garbage collector");
        Assert.Equal(DecodeResult.Ok, context.Decode(Batch(prompt, 0, 3, 0, 200)));
        float[] first = context.NativeHandle.GetLogitsIth(-1).ToArray();
        LLamaToken[] next = context.Tokenize(" is", addBos: false);
        var both = new LLamaBatch();
        both.Add(next[0], prompt.Length, (LLamaSeqId)0, true);
        both.Add(next[0], prompt.Length, (LLamaSeqId)200, true);
        Assert.Equal(DecodeResult.Ok, context.Decode(both));
        Assert.Equal(context.NativeHandle.GetLogitsIth(0).ToArray(), context.NativeHandle.GetLogitsIth(1).ToArray());
        Assert.Equal(prompt.Length, context.Handle.SeqLength(3));

        using LLamaContext other = Create();
        other.Decode(Batch(prompt, 0, 0));
        Assert.Equal(first, other.NativeHandle.GetLogits().ToArray());
        Assert.Throws<NotSupportedException>(() => other.Decode(Batch(prompt, prompt.Length, 0, 1)));
    }

    [Fact]
    public void Batches_that_cannot_be_say_so()
    {
        using LLamaContext context = Create();
        Assert.Equal(DecodeResult.Ok, context.Decode(new LLamaBatch()));
        Assert.Equal(DecodeResult.InvalidInputBatch, context.Decode(Batch([5, 16384], 0, 0)));
        Assert.Equal(DecodeResult.InvalidInputBatch, context.Decode(Batch([-1], 0, 0)));
        Assert.Throws<ArgumentException>(() => context.Decode(Batch(new LLamaToken[65], 0, 0)));
        Assert.Equal(0, context.Handle.SeqLength(0));
        Assert.Throws<GetLogitsInvalidIndexException>(() => context.NativeHandle.GetLogitsIth(-1).Length);
        context.Decode(Batch([1, 2, 3], 0, 0));
        Assert.Equal(1, Assert.Throws<GetLogitsInvalidIndexException>(() => context.NativeHandle.GetLogitsIth(1).Length).Index);
        Assert.Throws<GetLogitsInvalidIndexException>(() => context.NativeHandle.GetLogits(2).Length);
    }

    [Fact]
    public void Logits_of_several_tokens_come_in_the_batch_s_order()
    {
        using LLamaContext context = Create();
        var batch = new LLamaBatch();
        batch.Add(7, 0, (LLamaSeqId)1, true);
        batch.Add(8, 0, (LLamaSeqId)0, false);
        batch.Add(9, 1, (LLamaSeqId)0, true);
        context.Decode(batch);
        float[] both = context.NativeHandle.GetLogits(2).ToArray();
        int n = context.NativeHandle.VocabCount;
        Assert.Equal(context.NativeHandle.GetLogitsIth(0).ToArray(), both[..n]);
        Assert.Equal(context.NativeHandle.GetLogitsIth(2).ToArray(), both[n..]);
    }

    [Fact]
    public void Sequences_are_copied_cut_and_cleared()
    {
        using LLamaContext context = Create();
        SafeLLamaContextHandle view = context.NativeHandle;
        LLamaToken[] prompt = context.Tokenize("The garbage collector frees memory that nothing refers to any more.");
        context.Decode(Batch(prompt, 0, 0));
        for (int i = 1; i < 8; i++)
        {
            view.MemorySequenceCopy(LLamaSeqId.Zero, (LLamaSeqId)i, 0, prompt.Length);
        }

        view.MemorySequenceCopy(LLamaSeqId.Zero, (LLamaSeqId)8, -1, 4);
        Assert.Equal((0, prompt.Length - 1), (view.MemorySequenceMinPosition((LLamaSeqId)7).Value, view.MemorySequenceMaxPosition((LLamaSeqId)7).Value));
        Assert.Equal(3, view.MemorySequenceMaxPosition((LLamaSeqId)8).Value);
        view.MemorySequenceRemove((LLamaSeqId)7, 2, 5);
        Assert.Equal(prompt.Length - 3, context.Handle.SeqLength(7));
        view.MemorySequenceRemove((LLamaSeqId)7, 6, -1);
        Assert.Equal(6, context.Handle.SeqLength(7));
        Assert.Throws<NotSupportedException>(() => view.MemorySequenceCopy(LLamaSeqId.Zero, (LLamaSeqId)1, 2, 5));
        Assert.Throws<NotSupportedException>(() => view.MemorySequenceAdd(LLamaSeqId.Zero, 0, 5, 1));
        view.MemorySequenceKeep((LLamaSeqId)7);
        Assert.Equal((0, 6), (context.Handle.SeqLength(0), context.Handle.SeqLength(7)));
        view.MemoryClear();
        Assert.Equal(-1, view.MemorySequenceMaxPosition((LLamaSeqId)7).Value);
    }

    [Fact]
    public void Batches_are_counted_and_timed()
    {
        LLamaContext context = Create();
        SafeLLamaContextHandle view = context.NativeHandle;
        context.Decode(Batch([1, 2, 3], 0, 0));
        context.Decode(Batch([4], 3, 0));
        context.Decode(Batch([5], 4, 0));
        LLamaPerfContextTimings timings = view.GetTimings();
        Assert.Equal((3, 2), (timings.PrompTokensEvaluated, timings.TokensEvaluated));
        Assert.True(timings.PromptEval > TimeSpan.Zero && timings.Eval > TimeSpan.Zero);
        view.ResetTimings();
        Assert.Equal(TimeSpan.Zero, view.GetTimings().Eval);
        Assert.Equal((512u, 64u), (view.ContextSize, view.BatchSize));
        Assert.Same(_weights.NativeHandle, view.ModelHandle);
        Assert.False(view.IsClosed);
        context.Dispose();
        Assert.True(view.IsClosed);
    }

    [Fact]
    public void A_model_tells_of_itself()
    {
        SafeLlamaModelHandle handle = _weights.NativeHandle;
        Assert.True(handle.HasDecoder && !handle.HasEncoder && !handle.IsRecurrent);
        Assert.Equal(LLamaRopeType.Norm, handle.RopeType);
        Assert.Null(handle.MetadataValueByKey("no.such.key"));
        Assert.Null(handle.MetadataKeyByIndex(handle.MetadataCount));
        LLamaToken token = _weights.Tokenize(" collector", false, false)[0];
        Span<byte> text = stackalloc byte[4];
        Assert.Equal(10u, handle.TokenToSpan(token, text));
        Assert.Equal(" col"u8, text);
        Assert.Equal(9u, handle.TokenToSpan(token, text, lstrip: 3));
        Assert.Equal("coll"u8, text);
        Assert.Null(handle.Vocab.Mask);
    }
}
