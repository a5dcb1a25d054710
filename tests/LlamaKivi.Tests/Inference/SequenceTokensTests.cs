using CsCheck;

namespace LlamaKivi.Tests;

/// <summary>Comparison of a text with a sequence that has dropped tokens.</summary>
public sealed class SequenceTokensTests
{
    private static readonly Gen<(int[] Tokens, (int Start, int Count)[] Drops, int[] Text, int Same, int Capacity)> Cases = Gen.Select(
        Gen.Int[0, 2].Array[1, 30], Gen.Select(Gen.Int[0, 30], Gen.Int[1, 10]).Array[0, 4], Gen.Int[0, 2].Array[1, 10], Gen.Int[0, 30], Gen.Int[0, 50]);

    // All tokens read, including dropped ones at their original positions.
    private static List<int> Whole(SequenceTokens tokens)
    {
        var whole = new List<int>(tokens);
        foreach (DroppedTokens part in tokens.Dropped.Reverse())
        {
            whole.InsertRange(part.Position, part.Tokens);
        }

        return whole;
    }

    [Fact]
    public void The_kept_tokens_are_a_prefix_of_the_text() => Cases.Sample(
        test =>
        {
            var tokens = new SequenceTokens();
            tokens.AddRange(test.Tokens);
            foreach ((int start, int count) in test.Drops)
            {
                if (start < tokens.Count)
                {
                    tokens.Drop(start, Math.Min(count, tokens.Count - start));
                    Assert.Equal(test.Tokens, Whole(tokens));
                    Assert.Equal(tokens.Dropped.Select(part => part.Position).Distinct().Order(), tokens.Dropped.Select(part => part.Position));
                }
            }

            bool hasDropped = tokens.Dropped.Count > 0;
            int[] text = [.. test.Tokens[..Math.Min(test.Same, test.Tokens.Length)], .. test.Text];
            int same = text.AsSpan(0, text.Length - 1).CommonPrefixLength(test.Tokens);
            int read = tokens.KeepCommon(text, test.Capacity);
            Assert.Equal(text[..read], Whole(tokens));
            Assert.True(read < text.Length);
            if (!hasDropped || (same == test.Tokens.Length && text.Length > test.Capacity))
            {
                Assert.Equal(same, read);  // nothing is decoded twice
            }
            else if (text.Length <= test.Capacity)
            {
                Assert.Empty(tokens.Dropped);  // a text that fits is restored whole
            }
        },
        iter: 20_000);
}
