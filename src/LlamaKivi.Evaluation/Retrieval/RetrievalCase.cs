using System.Globalization;
using LlamaKivi.Tokenization;

namespace LlamaKivi.Evaluation;

/// <summary>A text that hides a number, with a question and its answer.</summary>
/// <param name="Prompt">Token ids of the text and the question.</param>
/// <param name="Answer">Token ids of the answer.</param>
internal sealed record RetrievalCase(int[] Prompt, int[] Answer)
{
    /// <summary>Creates a case.</summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="depth">Number of tokens of the prompt.</param>
    /// <param name="index">Even: a pass key; odd: a named secret code.</param>
    /// <param name="position">Position of the number, as a fraction of the text.</param>
    /// <param name="random">Source of text and number.</param>
    public static RetrievalCase Create(Tokenizer tokenizer, int depth, int index, double position, Random random)
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
            throw new ArgumentOutOfRangeException(nameof(depth), $"{depth} tokens are too few for a fact and a question; the minimum is {depth - room + 16}");
        }

        var filler = new FillerText(random);
        var text = new List<int>();
        while (text.Count < room)
        {
            text.AddRange(Ids(filler.Paragraph()));
        }

        int at = (int)(position * room);
        int[] prompt = [.. start, .. text[..at], .. factIds, .. text[at..room], .. questionIds];
        return new RetrievalCase(prompt, Ids($" {number}."));
    }

    private static (string Fact, string Question) CodeForm(string number, Random random)
    {
        string[] first = ["silver", "quiet", "northern", "hollow", "amber", "distant", "velvet", "crooked"];
        string[] second = ["harbor", "lantern", "orchard", "compass", "meadow", "anchor", "bridge", "falcon"];
        string words = $"{first[random.Next(first.Length)]} {second[random.Next(second.Length)]}";
        return ($"\n\nThe secret code for {words} is {number}.\n\n", $"\n\nQuestion: what is the secret code for {words}? Answer:");
    }
}
