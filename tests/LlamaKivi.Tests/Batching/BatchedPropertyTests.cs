using System.Globalization;
using LlamaKivi.Batched;
using LlamaKivi.Common;
using LlamaKivi.Exceptions;
using LlamaKivi.Native;
using LlamaKivi.Sampling;

namespace LlamaKivi.Tests;

/// <summary>Random programs of conversations in a small cache, checked against a model of the executor. LLAMA_KIVI_PROGRAMS sets their number.</summary>
public sealed class BatchedPropertyTests(InferenceTests.DemoModel model) : IClassFixture<InferenceTests.DemoModel>
{
    private const int Batch = 16;

    private static readonly CancellationToken Cancel = TestContext.Current.CancellationToken;

    // Below 128 tokens forks share no page, so the model is exact. Above, only invariants are checked.
    [Theory]
    [InlineData(96)]
    [InlineData(320)]
    public async Task Programs_do_what_the_model_says(int size)
    {
        int programs = int.Parse(Environment.GetEnvironmentVariable("LLAMA_KIVI_PROGRAMS") ?? "12", CultureInfo.InvariantCulture);
        for (int seed = 0; seed < programs; seed++)
        {
            using var program = new RandomProgram(model.Weights, size, seed);
            try
            {
                for (int step = 0; step < 60; step++)
                {
                    await program.StepAsync();
                    program.Check();
                }

                program.DisposeAll();
            }
            catch (Exception e)
            {
                throw new InvalidOperationException($"Program {seed} in {size} tokens: {string.Join("; ", program.Log)}", e);
            }
        }
    }

    // A conversation and its expected state.
    private sealed class Expected(Conversation conversation)
    {
        public Conversation Conversation => conversation;

        public List<int> Text { get; init; } = [];  // all tokens, queued ones last

        public int Waiting { get; set; }

        public bool IsBegun { get; set; }

        public bool AllLogits { get; set; }

        public bool HasLogits { get; set; }

        public int Logits { get; set; }  // number of rows

        public int Cached => Text.Count - Waiting;
    }

    private sealed class RandomProgram : IDisposable
    {
        private readonly Random _random;
        private readonly int _size;
        private readonly BatchedExecutor _executor;
        private readonly LLamaContext _reference;
        private readonly List<Expected> _live = [];
        private readonly List<Expected> _queue = [];

        public RandomProgram(LLamaWeights weights, int size, int seed)
        {
            _random = new Random(seed);
            _size = size;
            var parameters = new ModelParams(InferenceTests.DemoModel.Path)
            {
                ContextSize = (uint)size,
                BatchSize = Batch,
                SeqMax = 4,
                Threads = 1,
                KvCache = KvCacheParams.Parse("f16"),
            };
            _executor = new BatchedExecutor(weights, parameters);
            _reference = weights.CreateContext(parameters);
        }

        private bool IsExact => _size < 128;

        private bool HasForked { get; set; }

        public List<string> Log { get; } = [];

        public void Dispose()
        {
            _executor.Dispose();
            _reference.Dispose();
        }

        public async Task StepAsync()
        {
            int choice = _random.Next(100);
            Expected? one = _live.Count == 0 ? null : _live[_random.Next(_live.Count)];
            if (choice < 12 || one is null)
            {
                if (_live.Count < 6)
                {
                    Log.Add("create");
                    _live.Add(new Expected(_executor.Create()));
                }
            }
            else if (choice < 32)
            {
                Prompt(one, [.. Enumerable.Range(0, 1 + _random.Next(_random.Next(4) == 0 ? _size : 24)).Select(_ => _random.Next(300, 4000))], _random.Next(4) == 0);
            }
            else if (choice < 40)
            {
                Fork(one);
            }
            else if (choice < 46)
            {
                Log.Add($"dispose {one.Conversation.ConversationId}");
                one.Conversation.Dispose();
                Remove(one);
            }
            else if (choice < 52)
            {
                Rewind(one);
            }
            else if (choice < 68)
            {
                Sample(one);
            }
            else if (choice < 72)
            {
                Log.Add("cancelled infer");
                if (_queue.Count > 0)
                {
                    await Assert.ThrowsAnyAsync<OperationCanceledException>(() => _executor.Infer(new CancellationToken(true)));
                }
            }
            else
            {
                await InferAsync(choice < 78 ? one : null);
            }
        }

        public void Check()
        {
            Assert.Equal(_queue.Sum(one => one.Waiting), _executor.BatchedTokenCount);
            Assert.Equal(_live.Sum(one => one.Cached), _executor.Context.KvCacheUsage.Tokens);
            foreach (Expected one in _live)
            {
                Assert.Equal(
                    (one.Text.Count, one.Waiting > 0, one.HasLogits, one.Cached),
                    (one.Conversation.TokenCount, one.Conversation.RequiresInference, one.Conversation.RequiresSampling,
                        _executor.Context.Handle.SeqLength((int)one.Conversation.ConversationId)));
            }
        }

        public void DisposeAll()
        {
            _live.ForEach(one => one.Conversation.Dispose());
            Assert.Equal((0, 0), (_executor.BatchedTokenCount, _executor.Context.KvCacheUsage.Tokens));
        }

        private void Prompt(Expected one, int[] tokens, bool allLogits)
        {
            Log.Add($"prompt {one.Conversation.ConversationId} with {tokens.Length}{(allLogits ? " for all logits" : "")}");
            List<LLamaToken> given = [.. tokens.Select(token => (LLamaToken)token)];
            if (one.Waiting > 0)
            {
                Assert.Throws<AlreadyPromptedConversationException>(() => one.Conversation.Prompt(given, allLogits));
            }
            else if (allLogits && tokens.Length > Batch)
            {
                Assert.Throws<ArgumentException>(() => one.Conversation.Prompt(given, allLogits));
            }
            else if (one.Text.Count + tokens.Length > _size)
            {
                Assert.Throws<ContextOverflowException>(() => one.Conversation.Prompt(given, allLogits));
            }
            else
            {
                one.Conversation.Prompt(given, allLogits);
                one.Text.AddRange(tokens);
                (one.Waiting, one.IsBegun, one.AllLogits, one.HasLogits) = (tokens.Length, false, allLogits, false);
                _queue.Add(one);
            }
        }

        private void Fork(Expected one)
        {
            if (_live.Count == 6)
            {
                return;
            }

            Log.Add($"fork {one.Conversation.ConversationId}");
            var fork = new Expected(one.Conversation.Fork())
            {
                Text = [.. one.Text],
                Waiting = one.Waiting,
                IsBegun = one.IsBegun,
                AllLogits = one.AllLogits,
                HasLogits = one.HasLogits,
                Logits = one.Logits,
            };
            HasForked = true;
            _live.Add(fork);
            if (fork.Waiting > 0)
            {
                _queue.Add(fork);
            }
        }

        private void Rewind(Expected one)
        {
            int count = _random.Next(one.Text.Count + 1);
            Log.Add($"rewind {one.Conversation.ConversationId} by {count}");
            if (one.Waiting > 0)
            {
                Assert.Throws<CannotModifyWhileRequiresInferenceException>(() => one.Conversation.Rewind(count));
                return;
            }

            one.Conversation.Rewind(count);
            one.Text.RemoveRange(one.Text.Count - count, count);
            one.HasLogits = false;
        }

        // The logits depend on the conversation's text alone, within the tolerance of other batch sizes; changes by other conversations are not visible.
        private void Sample(Expected one)
        {
            if (!one.HasLogits)
            {
                Assert.ThrowsAny<ExperimentalBatchedExecutorException>(() => one.Conversation.Sample());
                return;
            }

            int offset = _random.Next(one.Logits);
            Log.Add($"sample {one.Conversation.ConversationId} at {offset}");
            Span<float> logits = one.Conversation.Sample(offset);
            _reference.Handle.SeqTruncate(0, 0);
            _reference.Handle.Decode([.. one.Text[..^offset]]);
            Span<float> expected = _reference.Handle.Logits(one.Text.Count - offset - 1);
            Assert.InRange(Distance(logits, expected), 0, 0.15);
            float was = logits[3];
            logits[3] = 1e6f;
            foreach (Expected other in _live.Where(other => other != one && other.HasLogits))
            {
                Assert.NotEqual(1e6f, other.Conversation.Sample()[3]);
            }

            logits[3] = was;
            if (offset == 0)
            {
                using var greedy = new GreedySamplingPipeline();
                Prompt(one, [(int)one.Conversation.Sample(greedy)], false);
            }
        }

        // Relative to the spread of the expected logits. Activation rounding depends on the batching; the largest difference on random tokens was 0.035.
        private static double Distance(ReadOnlySpan<float> actual, ReadOnlySpan<float> expected)
        {
            double mean = 0;
            foreach (float logit in expected)
            {
                mean += logit / expected.Length;
            }

            double error = 0;
            double spread = 0;
            for (int i = 0; i < expected.Length; i++)
            {
                error += Math.Pow(actual[i] - expected[i], 2);
                spread += Math.Pow(expected[i] - mean, 2);
            }

            return Math.Sqrt(error / spread);
        }

        // leaves: conversation to dispose of during the batch; null: none.
        private async Task InferAsync(Expected? leaves)
        {
            Log.Add(leaves is null ? "infer" : $"infer while {leaves.Conversation.ConversationId} leaves");
            List<(Expected One, int Take)> plan = Plan();
            bool left = false;
            if (leaves is not null)
            {
                _executor.Context.Handle.Observe(_ =>
                {
                    if (!left)
                    {
                        left = true;
                        Task.Run(leaves.Conversation.Dispose).GetAwaiter().GetResult();
                    }
                });
            }

            Dictionary<Expected, int> before = _queue.ToDictionary(one => one, one => one.Waiting);
            bool isEmpty = _queue.Count == 0;
            DecodeResult result = await _executor.Infer(Cancel);
            _executor.Context.Handle.Observe(null);
            if (left)
            {
                Remove(leaves!);
                before.Remove(leaves!);
            }

            if (IsExact)
            {
                Assert.Equal(isEmpty || plan.Count > 0 ? DecodeResult.Ok : DecodeResult.NoKvSlot, result);
            }
            else
            {
                // The number of decoded tokens is read from the cache; everything else must follow from it.
                plan = [.. before.Select(pair => (pair.Key, pair.Value - (pair.Key.Conversation.TokenCount - _executor.Context.Handle.SeqLength((int)pair.Key.Conversation.ConversationId))))];
                plan.RemoveAll(part => part.Take == 0);
                Assert.InRange(plan.Sum(part => part.Take), result == DecodeResult.Ok && !isEmpty && !left ? 1 : 0, result == DecodeResult.Ok ? Batch : 0);
            }

            if (isEmpty || (result != DecodeResult.Ok && !HasForked))
            {
                return;
            }

            _live.ForEach(one => one.HasLogits = false);
            foreach ((Expected one, int take) in plan.Where(part => _live.Contains(part.One)))
            {
                one.Waiting -= take;
                one.IsBegun = true;
                one.HasLogits = one.Waiting == 0;
                one.Logits = one.AllLogits ? take : 1;
                if (one.Waiting == 0)
                {
                    _queue.Remove(one);
                }
            }
        }

        // Oldest first. A prompt starts only if all of it fits besides the rest of the started prompts.
        private List<(Expected One, int Take)> Plan()
        {
            int room = _size - _live.Sum(one => one.Cached);
            HashSet<Expected> haveRoom = [];
            foreach (bool begun in new[] { true, false })
            {
                foreach (Expected one in _queue.Where(one => one.IsBegun == begun && one.Waiting <= room))
                {
                    haveRoom.Add(one);
                    room -= one.Waiting;
                }
            }

            var plan = new List<(Expected, int)>();
            int left = Batch;
            foreach (Expected one in _queue.Where(haveRoom.Contains))
            {
                int take = one.AllLogits && one.Waiting > left ? 0 : Math.Min(one.Waiting, left);
                left -= take;
                if (take > 0)
                {
                    plan.Add((one, take));
                }
            }

            return plan;
        }

        private void Remove(Expected one)
        {
            _live.Remove(one);
            _queue.Remove(one);
            Assert.True(one.Conversation.IsDisposed);
        }
    }
}
