namespace LlamaKivi;

/// <summary>Cuts a text that comes in pieces at the first stop sequence. Characters that may begin one wait.</summary>
internal sealed class StopFilter(string[] stops)
{
    /// <summary>The text up to the first stop sequence, which is left out. The pieces are read to their end.</summary>
    public async IAsyncEnumerable<string> CutAsync(IAsyncEnumerable<string> pieces)
    {
        string held = "";
        bool stopped = false;
        await foreach (string piece in pieces.ConfigureAwait(false))
        {
            if (stopped)
            {
                continue;
            }

            held += piece;
            int stop = stops.Select(s => held.IndexOf(s, StringComparison.Ordinal)).Where(at => at >= 0).DefaultIfEmpty(-1).Min();
            stopped = stop >= 0;
            int ready = stopped ? stop : held.Length - stops.Select(s => Overlap(held, s)).DefaultIfEmpty(0).Max();
            if (ready > 0)
            {
                yield return held[..ready];
            }

            held = held[ready..];
        }

        if (!stopped && held.Length > 0)
        {
            yield return held;
        }
    }

    /// <summary>Length of the longest end of a text that a string begins with.</summary>
    public static int Overlap(ReadOnlySpan<char> text, string value)
    {
        for (int length = Math.Min(text.Length, value.Length - 1); length > 0; length--)
        {
            if (text[^length..].SequenceEqual(value.AsSpan(0, length)))
            {
                return length;
            }
        }

        return 0;
    }
}
